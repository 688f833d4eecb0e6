"""Samples of tar shards: which files belong together, and what is left of them."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from source_forms import write_shard
from trees import png

from maekit.data import workers
from maekit.data.sources import find_source, shards
from maekit.data.sources.shards import INDEX_SUFFIX
from maekit.data.sources.source import Source
from maekit.data.sources.tar_samples import samples_of
from maekit.errors import DataError


def opened(folder: Path, members: dict[str, bytes]) -> Source:
    write_shard(folder / "a.tar", members)
    first = find_source(str(folder / "a.tar"))
    again = find_source(str(folder / "a.tar"))  # by the index
    assert again.passed_over == first.passed_over
    assert again.fingerprint() == first.fingerprint()
    return again


def names(source: Source) -> list[str]:
    return [source.path(index).rpartition(":")[2] for index in range(len(source))]


def test_dots_in_names_are_kept(tmp_path: Path) -> None:
    members = {f"Screenshot 2024-05-03 at 10.15.0{n}.png": png(n) for n in range(3)}
    labelled = {
        f"v1.{n}.{ending}": png(n) if ending == "jpg" else b"%d" % n for n in range(3) for ending in ("cls", "jpg")
    }
    source = opened(tmp_path, members | labelled)
    assert names(source) == [*members, "v1.0.jpg", "v1.1.jpg", "v1.2.jpg"]
    assert [source.label(index) for index in range(6)] == [None, None, None, 0, 1, 2]
    assert not source.passed_over.words()


@pytest.mark.parametrize(
    ("members", "taken", "second"),
    [
        ({"1.seg.png": 9, "1.png": 1, "1.depth.png": 8}, ["1.png"], 2),
        ({"1.jpg": 1, "1.png": 2}, ["1.jpg"], 1),
        ({"1.left.png": 1, "1.right.png": 2, "1.cls": 0}, ["1.left.png"], 1),
        ({"1.left.png": 1, "1.right.png": 2}, ["1.left.png", "1.right.png"], 0),
        ({"x/1.png": 1, "y/1.png": 2}, ["x/1.png", "y/1.png"], 0),
    ],
)
def test_of_several_images_the_one_with_the_plain_key_is_taken_and_the_others_counted(
    tmp_path: Path, members: dict[str, int], taken: list[str], second: int
) -> None:
    source = opened(tmp_path, {name: b"0" if name.endswith("cls") else png(n) for name, n in members.items()})
    assert names(source) == taken
    assert source.passed_over.images["second image in a sample"] == second


def test_a_whole_shard_may_share_its_names_first_part(tmp_path: Path) -> None:
    source = opened(tmp_path, {f"scan.{number:06d}.png": png(number) for number in range(300)})
    assert [source.read(index) for index in (0, 299)] == [png(0), png(299)]
    assert not source.passed_over.words()


def test_a_name_that_comes_twice_is_the_later_one_and_counted(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for value in (1, 2):
            member = tarfile.TarInfo("x.png")
            member.size = len(png(value))
            tar.addfile(member, io.BytesIO(png(value)))
    source = find_source(str(tmp_path / "a.tar"))
    assert [source.read(index) for index in range(len(source))] == [png(2)]
    assert source.passed_over.words() == "passed over: 1 image replaced by a later one of its name"


def test_labels_apart_from_their_images_find_them(tmp_path: Path) -> None:
    members = {"1.png": png(1), "2.png": png(2), "1.cls": b"owl", "2.cls": b"eel", "3.cls": b"emu"}
    source = opened(tmp_path, members)
    assert source.classes == ("eel", "owl")
    assert [source.label(index) for index in range(2)] == [1, 0]
    assert source.passed_over.images == {".cls without an image": 1}


def test_what_is_no_image_is_counted(tmp_path: Path) -> None:
    source = opened(tmp_path, {"1.png": png(1), "2.heic": b"x", "readme.txt": b"x", "._1.png": b"x"})
    assert source.passed_over.words() == "passed over: 1 .heic; beside the images: 1 .txt, 1 hidden file"


def test_an_index_of_an_earlier_kind_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path, {"1.a.png": png(1), "1.b.png": png(2)})
    (tmp_path / "a.tar.maekit-index.json").write_text("{}")
    monkeypatch.setattr(shards, "_VERSION", shards._VERSION + 1)
    reads = []
    monkeypatch.setattr(shards, "samples_of", lambda shard: reads.append(shard) or samples_of(shard))
    for _ in range(2):
        assert names(find_source(str(tmp_path))) == ["1.a.png", "1.b.png"]
    assert reads == [tmp_path / "a.tar"]
    assert {file.name for file in tmp_path.iterdir()} == {"a.tar", f"a.tar{INDEX_SUFFIX}"}


def test_several_processes_index_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        write_shard(tmp_path / f"{number}.tar", {f"{number}.png": png(number), f"{number}.cls": b"%d" % number})
    monkeypatch.setattr(shards, "_BY_ONE", 0)
    monkeypatch.setattr(workers, "worker_count", lambda _: 2)
    source = find_source(str(tmp_path))
    assert [(source.read(index), source.label(index)) for index in range(3)] == [(png(n), n) for n in range(3)]
    for number in (1, 2):
        write_shard(tmp_path / f"{number}.tar", {f"{number}.png": png(number)} | {"more.png": png(9)})
        os.truncate(tmp_path / f"{number}.tar", 700)
    with pytest.raises(DataError, match=r"1\.tar: not an uncompressed and complete tar"):
        find_source(str(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"offsets": np.array([-1, 512])}, {"sizes": np.array([10**12, 9])}, {"codes": np.array([0, 7])},
        {"ends": np.array([7, 3])}, {"ends": np.array([7, 99])}, {"sizes": np.array([1.0, 2.0])},
        {"offsets": np.array([0])},
    ],
)  # fmt: skip
def test_an_index_that_cannot_be_right_is_made_anew(tmp_path: Path, change: dict[str, np.ndarray]) -> None:
    opened(tmp_path, {"1.a.png": png(1), "1.b.png": png(2)})
    index = tmp_path / f"a.tar{INDEX_SUFFIX}"
    with np.load(index) as kept:
        np.savez(index, **(dict(kept) | change))
    source = find_source(str(tmp_path / "a.tar"))
    assert [source.read(number) for number in range(2)] == [png(1), png(2)]
