"""Training and held-out images side by side are never joined without being asked for."""

from pathlib import Path

import pytest
from trees import labels_by_name, names_of, refusal, tree

from maekit.data.sources import find_source

PACKED = {
    "folders of parquet": ("default/train/0000.parquet", "default/test/0000.parquet"),
    "parquet files": ("train.parquet", "test.parquet"),
    "numbered": ("train_0.parquet", "train_1.parquet", "test_0.parquet"),
    "tars": ("imagenet1k-train-0000.tar", "imagenet1k-train-0001.tar", "imagenet1k-validation-00.tar"),
    "the hub's names": ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"),
    "the hub's own words": ("fold_a-00000-of-00001.parquet", "fold_b-00000-of-00001.parquet"),
}


@pytest.mark.parametrize("names", PACKED.values(), ids=PACKED)
def test_packed_files_of_several_splits_are_refused_with_what_to_type(tmp_path: Path, names: tuple[str, ...]) -> None:
    said = refusal(tree(tmp_path, *names))
    assert "holds several splits" in said
    words = [word.rstrip(",;:") for word in said.split() if word.startswith(str(tmp_path))]
    parts = [find_source(word) for word in dict.fromkeys(words) if word != str(tmp_path) and "+" not in word]
    assert all(len(part) < len(names) for part in parts)
    assert len(parts) >= 2
    both = next(word for word in words if "+" in word)
    assert len(find_source(both)) == len(names)


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train", "val"),
        ("Training", "Validation"),
        ("train2017", "val2017"),
        ("seg_train", "seg_test"),
        ("TrainSet", "TestSet"),
    ],
)
def test_folders_of_splits_are_no_classes(tmp_path: Path, train: str, val: str) -> None:
    tree(tmp_path, *(f"{split}/{name}/1.png" for split in (train, val) for name in ("cat", "dog")))
    said = refusal(tmp_path)
    assert "holds several splits" in said
    assert f"{tmp_path}/{train} or {tmp_path}/{val}" in said
    assert f"{tmp_path}@" in said
    source = find_source(f"{tmp_path}@train")
    assert labels_by_name(source, tmp_path) == {f"{train}/cat/1.png": "cat", f"{train}/dog/1.png": "dog"}
    assert len(find_source(f"{tmp_path}/{val}")) == 2


def test_words_may_be_told_apart_by_capitals(tmp_path: Path) -> None:
    tree(tmp_path, "trainA/1.png", "trainB/2.png", "testA/3.png", "testB/4.png")
    assert "holds several splits, train (2 images), test (2 images)" in refusal(tmp_path)
    assert names_of(find_source(f"{tmp_path}@train"), tmp_path) == ["trainA/1.png", "trainB/2.png"]


def test_several_splits_may_be_asked_for(tmp_path: Path) -> None:
    tree(tmp_path, *(f"{split}/{name}/1.png" for split in ("train", "val", "test") for name in ("cat", "dog")))
    source = find_source(f"{tmp_path}@train+val")
    assert source.classes == ("cat", "dog")
    assert names_of(source, tmp_path) == ["train/cat/1.png", "train/dog/1.png", "val/cat/1.png", "val/dog/1.png"]
    assert len(find_source(f"{tmp_path}@validation")) == 2, "another word for the same"
    assert "has no split 'extra'; there are train, val, test" in refusal(f"{tmp_path}@extra")


@pytest.mark.parametrize(
    "names",
    [
        ("test/1.png", "cat/1.png", "dog/1.png"),
        ("train/1.png", "car/1.png", "bus/1.png", "bicycle/1.png"),
        ("training shoes/1.png", "boots/1.png"),
    ],
)
def test_a_class_may_be_called_like_a_split(tmp_path: Path, names: tuple[str, ...]) -> None:
    source = find_source(str(tree(tmp_path, *names)))
    assert source.classes == tuple(sorted(name.partition("/")[0] for name in names))


def test_splits_of_one_class_among_others_are_none(tmp_path: Path) -> None:
    names = [f"{place}/{n}.png" for place in ("cat", "dog", "car/train", "car/test") for n in range(3)]
    assert find_source(str(tree(tmp_path, *names))).classes == ("car", "cat", "dog")


def test_what_is_in_no_split_is_said(tmp_path: Path) -> None:
    tree(
        tmp_path,
        *(f"{split}/{name}/1.png" for split in ("train", "val") for name in ("cat", "dog")),
        "extra/x.png",
        "y.png",
    )
    assert "and 2 images in none of them" in refusal(tmp_path)
    source = find_source(f"{tmp_path}@train+val")
    assert len(source) == 4
    assert source.passed_over.images == {"image in no split": 2}


def test_a_split_that_cannot_be_read_is_counted(tmp_path: Path) -> None:
    tree(tmp_path, "train/cat/1.png", "train/dog/1.png", "val/cat/1.heic", "2.heic", "train/.hidden")
    source = find_source(str(tmp_path))
    assert source.classes == ("cat", "dog")
    assert source.passed_over.images == {".heic": 2}
    assert source.passed_over.beside == {"hidden file": 1}


def test_one_split_alone_is_taken_and_said(tmp_path: Path) -> None:
    source = find_source(str(tree(tmp_path, "train/cat/1.png", "train/dog/1.png")))
    assert source.classes == ("cat", "dog")
    assert "all images lie in train, whose folders are taken for the classes" in source.passed_over.notes


def test_names_that_say_no_split_are_one_source(tmp_path: Path) -> None:
    assert len(find_source(str(tree(tmp_path / "a", "part-0.parquet", "part-1.parquet")))) == 2
    assert len(find_source(str(tree(tmp_path / "b", "birds-train-0.tar", "birds-train-1.tar")))) == 2
    assert "has no splits, so @val chooses nothing" in refusal(f"{tmp_path}/a@val")


def test_a_pattern_is_held_to_the_same(tmp_path: Path) -> None:
    tree(tmp_path, "train-0.tar", "train-1.tar", "val-0.tar")
    assert "several splits" in refusal(f"{tmp_path}/*.tar")
    assert len(find_source(f"{tmp_path}/*.tar@train")) == 2
    assert len(find_source(f"{tmp_path}/{{train-0,val-0}}.tar")) == 2, "each is named"


def test_what_is_really_called_so_goes_first(tmp_path: Path) -> None:
    tree(tmp_path, "photos@train/1.png", "photos/train/2.png", "photos/val/3.png")
    assert names_of(find_source(f"{tmp_path}/photos@train"), tmp_path) == ["photos@train/1.png"]


def test_a_list_has_splits_in_a_column(tmp_path: Path) -> None:
    tree(tmp_path, "1.png", "2.png", "3.png")
    (tmp_path / "all.csv").write_text("path,label,split\n1.png,0,train\n2.png,1,train\n3.png,0,test\n")
    assert "take one of them" in refusal(tmp_path / "all.csv")
    source = find_source(f"{tmp_path}/all.csv@train")
    assert names_of(source, tmp_path) == ["1.png", "2.png"]
    assert source.text == f"{tmp_path}/all.csv@train"
    assert len(find_source(f"{tmp_path}/all.csv@Training")) == 2, "another word for the same"
    assert len(find_source(f"{tmp_path}/all.csv@train+test")) == 3


def test_linked_folders_of_shards_are_found(tmp_path: Path) -> None:
    tree(tmp_path / "disk", "a.tar", "b.tar")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "disk")
    assert len(find_source(str(tmp_path / "data"))) == 2
