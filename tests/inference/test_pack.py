"""Packing a source: a folder that is a source with the same labels, classes and order, whole or not there."""

import json
import os
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import maekit
from maekit import storage
from maekit.data.decode import decode
from maekit.data.sources import Source, find_source
from maekit.errors import DataError, RunError, StorageError, UsageError
from maekit.inference import pack as module
from processes import Started


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """Twelve pictures of 60 x 80 to 71 x 80 px in three class folders, one of which is no picture."""
    draw = np.random.default_rng(0)
    for number in range(12):
        folder = tmp_path / "animals" / ("dog", "ant", "cat")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((80, 60 + number)).save(folder / f"a{number:02d}.jpg", quality=95)
    (tmp_path / "animals/cat/a02.jpg").write_bytes(b"no picture")
    return tmp_path / "animals"


def facts_of(source: Source) -> list[tuple[int | None, tuple[int, ...]]]:
    """Label and size of each readable image, in order."""
    return [(source.label(i), tuple(decode(source.read(i), 3).shape)) for i in range(len(source))]


def packed(source: object, out: Path, **options: object) -> maekit.Packed:
    return maekit.pack(str(source), out=str(out), **{"short_side": 32, "workers": 0, **options})


@pytest.mark.parametrize("to", ["tar", "parquet"])
@pytest.mark.parametrize("shards", [1, 3, None])
def test_a_packed_folder_is_a_source_with_the_same_labels(animals: Path, tmp_path: Path, to: str, shards: int) -> None:
    said = packed(animals, tmp_path / "out", to=to, shards=shards)
    assert (said.images, said.shards, said.how) == (11, shards or 1, {"made smaller": 11})
    assert [Path(bad["path"]).name for bad in said.unreadable] == ["a02.jpg"]
    assert "02.jpg: not an image" in (tmp_path / "out/unreadable.txt").read_text()
    before, after = find_source(str(animals)), find_source(str(tmp_path / "out"))
    assert after.classes == before.classes == ("ant", "cat", "dog")
    whole = [index for index in range(12) if not before.path(index).endswith("02.jpg")]
    assert [label for label, _ in facts_of(after)] == [before.label(index) for index in whole]
    assert all(size[1] == 32 for _, size in facts_of(after))
    if to == "tar":
        assert [after.path(i).split("_")[-1] for i in range(11)] == [Path(before.path(i)).name for i in whole]


def test_classes_keep_their_numbers_whatever_their_names(tmp_path: Path) -> None:
    """Names out of order, names that are numbers, a class that no image has, an image without a label."""
    pictures = np.zeros((3, 8, 8), np.uint8)
    for names in (["zebra", "ant", "unused"], ["2", "1", "0"]):
        made = [(picture, label) for picture, label in zip(pictures, (0, 1, 0), strict=True)]
        source = _Named(made, names)
        for to in ("tar", "parquet"):
            out = tmp_path / f"{names[0]}-{to}"
            maekit.pack(source, out=str(out), to=to, workers=0)
            found = find_source(str(out))
            assert found.classes == tuple(names)
            assert [found.label(index) for index in range(3)] == [0, 1, 0]


class _Named:
    """A map-style data set with named classes."""

    def __init__(self, pairs: list, classes: list[str]) -> None:
        self.pairs, self.classes = pairs, classes

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple:
        return self.pairs[index]


def test_unlabelled_images_stay_so(tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (50, 50)).save(tmp_path / "flat/a.png")
    Image.new("RGB", (20, 20)).save(tmp_path / "flat/b.png")
    for to in ("tar", "parquet"):
        said = packed(tmp_path / "flat", tmp_path / to, to=to)
        assert said.how == {"made smaller": 1, "small already": 1}
        found = find_source(str(tmp_path / to))
        assert found.classes is None
        assert found.read(1) == (tmp_path / "flat/b.png").read_bytes()


def test_workers_change_no_byte(animals: Path, tmp_path: Path) -> None:
    hashes = []
    for workers in (0, 2):
        packed(animals, tmp_path / str(workers), workers=workers, shards=2)
        manifest = json.loads((tmp_path / str(workers) / storage.MANIFEST).read_text())
        hashes.append(manifest["files"])
    assert hashes[0] == hashes[1]


def test_a_packing_that_was_killed_goes_on(animals: Path, tmp_path: Path) -> None:
    """Killed in the middle of its shards; those that were there are not written again."""
    out, work = tmp_path / "out", tmp_path / "out.part"
    slowly = (
        "import sys, time; from maekit import cli; from maekit.inference import pack\n"
        "small = pack.made_small\n"
        "pack.made_small = lambda *a: (time.sleep(0.05), small(*a))[1]\n"
        "cli.main(sys.argv[1:])"
    )
    words = ["pack", animals, "--out", out, "--short-side", "32", "--shards", "6", "--workers", "0"]
    process = Started(*words, program=slowly)
    while len(list(work.glob("shard-*"))) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    there = {path: path.stat().st_mtime_ns for path in sorted(work.glob("shard-*"))[:2]}
    said = packed(animals, out, shards=6)
    assert (said.images, said.shards) == (11, 6)
    assert all((out / path.name).stat().st_mtime_ns == when for path, when in there.items())
    assert sorted(path.name for path in out.iterdir() if path.name.startswith((".", "lock"))) == []
    packed(animals, tmp_path / "at once", shards=6)
    assert facts_of(find_source(str(out))) == facts_of(find_source(str(tmp_path / "at once")))


def test_a_shard_that_the_disk_altered_is_found_and_made_anew(
    animals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = module._verify

    def altered(work: Path, *rest: object) -> None:
        shard = sorted(work.glob("shard-*"))[1]
        content = bytearray(shard.read_bytes())
        content[700] ^= 1
        shard.write_bytes(content)
        verify(work, *rest)

    monkeypatch.setattr(module, "_verify", altered)
    with pytest.raises(StorageError, match=r"shard-00001\.tar: is not what was written; it is removed"):
        packed(animals, tmp_path / "out", shards=3)
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    assert packed(animals, tmp_path / "out", shards=3).images == 11


def test_the_same_command_again_changes_nothing(animals: Path, tmp_path: Path) -> None:
    first = packed(animals, tmp_path / "out")
    when = (tmp_path / "out" / storage.MANIFEST).stat().st_mtime_ns
    again = packed(animals, tmp_path / "out")
    assert (again.images, again.how, again.bytes) == (first.images, first.how, first.bytes)
    assert (tmp_path / "out" / storage.MANIFEST).stat().st_mtime_ns == when


def test_a_folder_of_something_else_is_left_alone(animals: Path, tmp_path: Path) -> None:
    packed(animals, tmp_path / "out")
    with pytest.raises(StorageError, match=r"is there already, of other images or options \(short_side 32\)"):
        packed(animals, tmp_path / "out", short_side=40)
    (tmp_path / "mine").mkdir()
    with pytest.raises(StorageError, match="is there already; choose another --out"):
        packed(animals, tmp_path / "mine")
    for there in (tmp_path, "."):
        with pytest.raises(StorageError, match="is there already"):
            packed(animals, there)
    (tmp_path / "begun.part").mkdir()
    (tmp_path / "begun.part/.plan.json").write_text('{"short_side": 99}')
    (tmp_path / "begun.part/shard-00000.tar").write_bytes(b"")
    with pytest.raises(StorageError, match="that was not finished; remove it"):
        packed(animals, tmp_path / "begun")


def test_a_full_disk_is_said_and_what_was_begun_in_vain_binds_nobody(animals: Path, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(StorageError, match="cannot be written"):
            packed(animals, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "out.part").glob("shard-*")) == []
    assert packed(animals, tmp_path / "out", short_side=40).images == 11


def test_two_processes_do_not_write_one_folder(animals: Path, tmp_path: Path) -> None:
    (tmp_path / "out.part").mkdir()
    with module.lock(tmp_path / "out.part/lock"), pytest.raises(RunError, match="is in use by process"):
        packed(animals, tmp_path / "out")


def test_what_cannot_be_packed_is_said_in_one_line(animals: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--shards 13: there are 12 images"):
        packed(animals, tmp_path / "out", shards=13)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/one.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of its 1 images can be read: not an image"):
        packed(tmp_path / "broken", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(StorageError, match="cannot be written"):
        packed(animals, Path("/proc/out"))


def test_the_command_says_what_it_did(animals: Path, tmp_path: Path, maekit_here) -> None:
    done = maekit_here("pack", animals, "--out", tmp_path / "out", "--short-side", "64", "--workers", "0", "--json")
    assert done.returncode == 0
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["how"] == {"made smaller": 7, "small already": 4}
    for words in (
        "to a shorter side of 64 px",
        "small enough already",
        "1, left out",
        "images/s a process before",
        "02.jpg: not an",
    ):
        assert words in done.stderr


def test_a_packed_source_trains(animals: Path, tmp_path: Path) -> None:
    packed(animals, tmp_path / "out")
    found = maekit.data(str(tmp_path / "out"), workers=0)
    assert (found.images, found.classes) == (11, {"ant": 4, "cat": 3, "dog": 4})
    assert found.unreadable == []
