"""The folder of copies: bounded, whole or absent, one fetch for all."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from maekit.data import cache, copies
from maekit.data.copies import Copies

NAMES = {letter: letter * 32 for letter in "abcdef"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "elsewhere"


def writes(size: int) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(bytes(size)) and None  # type: ignore[func-returns-value]


def there(folder: Path) -> set[str]:
    return {path.name[0] for path in folder.glob("*.maekit-copy")}


def use(held: Copies, name: str, folder: Path, at: int) -> None:
    held.held(NAMES[name], 40, writes(40))
    os.utime(folder / f"{NAMES[name]}.maekit-copy", (at, at))


def test_what_was_used_longest_ago_makes_room(folder: Path) -> None:
    held = Copies(100)
    for at, name in enumerate("ab"):
        use(held, name, folder, at)
    assert there(folder) == {"a", "b"}
    os.utime(folder / f"{NAMES['a']}.maekit-copy", (9, 9))  # as reading it does
    held.held(NAMES["c"], 40, writes(40))
    assert there(folder) == {"a", "c"}


def test_reading_is_noted(folder: Path) -> None:
    use(Copies(100), "a", folder, 0)
    Copies(100).held(NAMES["a"], 40, writes(40))
    assert (folder / f"{NAMES['a']}.maekit-copy").stat().st_mtime > 0


def test_what_came_out_larger_than_was_thought_keeps_the_bound(folder: Path) -> None:
    held = Copies(100)
    use(held, "a", folder, 0)
    held.held(NAMES["b"], 10, writes(90))
    assert there(folder) == {"b"}


def test_copies_of_parquet_here_count(folder: Path) -> None:
    folder.parent.mkdir()
    (folder.parent / "x.maekit-images").write_bytes(bytes(50))
    held = Copies(100)
    for at, name in enumerate("ab"):
        use(held, name, folder, at)
    assert there(folder) == {"b"}
    assert cache.size() == 90


def test_a_twentieth_of_the_disk_stays_free(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Copies(1000)
    use(held, "a", folder, 0)
    for free, left in ((60, {"a", "b"}), (30, {"b", "c"})):
        monkeypatch.setattr(cache, "disk_usage", lambda _, free=free: SimpleNamespace(total=200, free=free))
        use(held, max(left), folder, len(left))
        assert there(folder) == left


def test_of_a_large_disk_less_than_a_twentieth_stays_free(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.parent.mkdir()
    for total, free, more in ((4e12, 7e9, 2e9), (252e9, 7e9, 2e9), (50e9, 7e9, 4.5e9), (4e12, 4e9, -1e9)):
        disk = SimpleNamespace(total=total, free=free)
        monkeypatch.setattr(cache, "disk_usage", lambda _, disk=disk: disk)
        assert cache.room(200e9) == more


def test_a_fetch_that_fails_leaves_nothing(folder: Path) -> None:
    def fails(path: Path) -> None:
        path.write_bytes(bytes(7))
        raise OSError("cut")

    with pytest.raises(OSError, match="cut"):
        Copies(100).held(NAMES["a"], 40, fails)
    assert not [path for path in folder.iterdir() if path.is_file()]


def test_what_a_killed_process_left_makes_room(folder: Path) -> None:
    def hangs(path: Path) -> None:
        path.write_bytes(bytes(5))
        started.set()
        time.sleep(60)

    started = multiprocessing.Event()
    process = multiprocessing.get_context("fork").Process(
        target=Copies(100).held, args=(NAMES["a"], 40, hangs), daemon=True
    )
    process.start()
    assert started.wait(20)
    use(Copies(100), "b", folder, 0)
    use(Copies(100), "c", folder, 1)
    assert there(folder) == {"c"}  # 40 of 100 are promised to the other one
    process.kill()
    process.join()
    use(Copies(100), "d", folder, 2)
    assert there(folder) == {"c", "d"}
    assert not list(folder.glob("*partial"))


def test_processes_fetch_a_file_once() -> None:
    forking = multiprocessing.get_context("fork")
    fetched = forking.Value("i", 0)

    def slowly(path: Path) -> None:
        with fetched.get_lock():
            fetched.value += 1
        path.write_bytes(bytes(20))
        time.sleep(0.3)
        path.write_bytes(bytes(40))

    def read(answers: "multiprocessing.Queue[int]") -> None:
        answers.put(len(Copies(100).held(NAMES["a"], 40, slowly).read_bytes()))

    answers = forking.Queue()
    processes = [forking.Process(target=read, args=(answers,)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [answers.get(timeout=30) for _ in processes] == [40] * 4
    assert fetched.value == 1


def test_who_need_not_wait_does_not() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slowly(path: Path) -> None:
        begun.set()
        assert go_on.wait(20)
        path.write_bytes(bytes(40))

    thread = threading.Thread(target=Copies(100).held, args=(NAMES["a"], 40, slowly))
    thread.start()
    assert begun.wait(20)
    assert not Copies(100).held(NAMES["a"], 40, writes(40), wait=False).exists()
    go_on.set()
    assert Copies(100).held(NAMES["a"], 40, writes(1)).read_bytes() == bytes(40)
    thread.join()


def test_a_process_that_was_forked_meanwhile_holds_no_lock(folder: Path) -> None:
    def forks(path: Path) -> None:
        path.write_bytes(bytes(40))
        child.start()

    go_on = multiprocessing.get_context("fork").Event()
    child = multiprocessing.get_context("fork").Process(target=go_on.wait, daemon=True)
    Copies(100).held(NAMES["a"], 40, forks)
    (folder / f"{NAMES['a']}.maekit-copy").unlink()
    assert Copies(100).held(NAMES["a"], 40, writes(40), wait=False).exists()
    go_on.set()
    child.join()


def test_clearing_removes_them_and_what_is_known(folder: Path) -> None:
    use(Copies(100), "a", folder, 0)
    (folder / "known").mkdir()
    (folder / "known" / f"{NAMES['a']}.maekit-index.npz").write_bytes(bytes(5))
    assert cache.clear() == 45
    assert not list(folder.rglob("*.maekit-*"))
    assert copies.folder() == folder
