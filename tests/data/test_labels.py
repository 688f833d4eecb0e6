"""Labels of all kinds become integers, or one line that says why not."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from maekit.data.sources import open_source
from maekit.data.sources.labelled import labelled_pair
from maekit.data.sources.labels import found_labels, integer_labels
from maekit.errors import DataError


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 4), 9).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path: Path, labels: pa.Array) -> None:
    images = pa.array([{"bytes": png(), "path": None}] * len(labels))
    pq.write_table(pa.table({"image": images, "label": labels}), path)


def write_shard(path: Path, ending: str, contents: list[str]) -> None:
    with tarfile.open(path, "w") as tar:
        for number, content in enumerate(contents):
            for name, data in ((f"{number}.png", png()), (f"{number}.{ending}", content.encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def list_file(path: Path, labels: list[int]) -> str:
    path.write_text("".join(f"{number}.png, {label}\n" for number, label in enumerate(labels)))
    (path.parent / "0.png").write_bytes(png())
    return str(path)


@pytest.mark.parametrize("numbers", [[0, 1, 2], [True, False], np.array([0, 2], np.uint8), [], [-5, 1]])
def test_integers_are_labels(numbers: list[int]) -> None:
    labels, _ = integer_labels("t", numbers)
    assert labels.dtype == np.int64
    assert labels.tolist() == [max(int(number), -1) for number in numbers]


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ([0.7, 1.9], "a label is 0.7"),
        ([0.0, 1.0], "a label is 0.0"),
        ([[0, 1], [2]], "a label is a list"),
        ([[0, 1], [2, 3]], "a label is [0, 1]"),
        ([0, 10**30], "an integer of more than 64 bits"),
        ([0, 2**63], "more than 64 bits"),
        (np.array([0, 2**64 - 1], np.uint64), "image 1 has label"),
        ([0, 5_000_000], "image 1 has label 5000000"),
    ],
)
@pytest.mark.parametrize("labels_of", [integer_labels, found_labels])
def test_what_is_no_label_is_one_line(labels_of, numbers: list, said: str) -> None:
    with pytest.raises(DataError) as caught:
        labels_of("here", numbers)
    message = str(caught.value)
    assert message.startswith("here: ")
    assert said in message
    assert "\n" not in message


def test_parquet_files_may_keep_labels_of_different_widths(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", pa.array([0, 1], pa.int64()))
    write_parquet(tmp_path / "b.parquet", pa.array([2, None], pa.int32()))
    source = open_source(str(tmp_path))
    assert [source.label(index) for index in range(4)] == [0, 1, 2, None]


@pytest.mark.parametrize("labels", [pa.array([2**64 - 1], pa.uint64()), pa.array([0.5]), pa.array([[1]])])
def test_parquet_labels_that_are_none_are_one_line(tmp_path: Path, labels: pa.Array) -> None:
    write_parquet(tmp_path / "a.parquet", labels)
    with pytest.raises(DataError, match=r"^[^\n]*label[^\n]*$"):
        open_source(str(tmp_path / "a.parquet"))


def test_a_huge_number_in_a_json_file_is_one_line(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", "json", ['{"label": 1}', json.dumps({"label": 10**20})])
    with pytest.raises(DataError, match="more than 64 bits"):
        open_source(str(tmp_path / "a.tar"))


@pytest.mark.parametrize("digits", [20, 5000])
def test_a_cls_file_of_many_digits_names_a_class(tmp_path: Path, digits: int) -> None:
    write_shard(tmp_path / "a.tar", "cls", ["9" * digits, "1" * digits])
    assert open_source(str(tmp_path / "a.tar")).classes == ("1" * digits, "9" * digits)


class TestPairs:
    def test_held_out_numbers_may_lack_the_highest_class(self, tmp_path: Path) -> None:
        train, val = list_file(tmp_path / "train.txt", [0, 1, 2]), list_file(tmp_path / "val.txt", [1, 0])
        _, judged = labelled_pair(open_source(train), open_source(val))
        assert judged.classes == ("0", "1", "2")
        assert [judged.label(index) for index in range(2)] == [1, 0]

    def test_held_out_folders_may_lack_any_class(self, tmp_path: Path) -> None:
        for name in ("train/a", "train/b", "train/c", "val/a", "val/c"):
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "0.png").write_bytes(png())
        train, held_out = (open_source(str(tmp_path / part)) for part in ("train", "val"))
        _, judged = labelled_pair(train, held_out)
        assert [(Path(judged.path(i)).parent.name, judged.label(i)) for i in range(2)] == [("a", 0), ("c", 2)]
        assert judged.read(0) == png()
        assert judged.fingerprint() == held_out.fingerprint()

    def test_numbers_judge_a_folder_of_named_classes_and_are_judged_by_one(self, tmp_path: Path, caplog) -> None:
        for name in ("photos/cat", "photos/dog", "photos/eel"):
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "0.png").write_bytes(png())
        folder = open_source(str(tmp_path / "photos"))
        with caplog.at_level("WARNING", logger="maekit"):
            _, judged = labelled_pair(folder, open_source(list_file(tmp_path / "two.txt", [1, 0])))
            assert judged.classes == ("cat", "dog", "eel")
            assert [judged.label(index) for index in range(2)] == [1, 0]
            assert "names no classes; its labels are taken as the numbers of those of" in caplog.text
            caplog.clear()
            _, judged = labelled_pair(open_source(list_file(tmp_path / "three.txt", [2, 1, 0])), folder)
            assert judged.classes == ("0", "1", "2")
            assert [judged.label(index) for index in range(3)] == [0, 1, 2]
            assert "the 3 of" in caplog.text
        with pytest.raises(DataError, match="different classes"):
            labelled_pair(folder, open_source(list_file(tmp_path / "four.txt", [3, 0])))

    def test_folders_called_by_numbers_are_matched_by_name_or_not_at_all(self, tmp_path: Path) -> None:
        for name in ("train/1", "train/2", "train/3"):
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "0.png").write_bytes(png())
        folder = open_source(str(tmp_path / "train"))
        _, judged = labelled_pair(folder, open_source(list_file(tmp_path / "by_name.txt", [1, 2])))
        assert [judged.classes[judged.label(index)] for index in range(2)] == ["1", "2"]
        with pytest.raises(DataError, match="different classes"):
            labelled_pair(folder, open_source(list_file(tmp_path / "from_0.txt", [0, 1])))

    def test_an_accent_in_either_form_is_the_same_class(self, tmp_path: Path) -> None:
        for name in ("train/caf\u00e9", "train/dog", "val/cafe\u0301", "val/dog"):
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "0.png").write_bytes(png())
        train, val = labelled_pair(*(open_source(str(tmp_path / part)) for part in ("train", "val")))
        assert train.classes == val.classes == ("caf\u00e9", "dog")
        assert [val.label(index) for index in range(2)] == [0, 1]

    def test_a_class_that_was_not_learned_cannot_be_judged(self, tmp_path: Path) -> None:
        train, val = list_file(tmp_path / "train.txt", [0, 1]), list_file(tmp_path / "val.txt", [1, 2])
        with pytest.raises(DataError, match=r"different classes; in .*val.txt alone: 2$"):
            labelled_pair(open_source(train), open_source(val))
