"""Samples of tar shards: which files belong together, and what is left of them."""

import io
import tarfile
from pathlib import Path

import pytest
from source_forms import write_shard
from trees import png

from maekit.data.sources import find_source
from maekit.data.sources.shards import INDEX_SUFFIX
from maekit.data.sources.source import Source


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


def test_an_index_of_an_earlier_kind_is_made_anew(tmp_path: Path) -> None:
    opened(tmp_path, {"1.a.png": png(1), "1.b.png": png(2)})
    index = tmp_path / f"a.tar{INDEX_SUFFIX}"
    index.write_text(index.read_text().replace('"version": 2', '"version": 1').replace("1.b.png", "9.b.png"))
    assert names(find_source(str(tmp_path / "a.tar"))) == ["1.a.png", "1.b.png"]
