"""Parquet as others write it: paths, dictionaries, columns in any order, several columns of images."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_forms import write_parquet
from trees import png, refusal, tree

from maekit.data.sources import find_source
from maekit.data.sources.source import Source


def written(file: Path, columns: dict[str, Any]) -> str:
    pq.write_table(pa.table(columns), file)
    return str(file)


def labels(source: Source) -> list[str | None]:
    numbers = [source.label(index) for index in range(len(source))]
    return [None if number is None else (source.classes or ())[number] for number in numbers]


@pytest.mark.parametrize("column", ["image", "path", "file_name"])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_paths_as_text_count_from_the_files_folder(tmp_path: Path, column: str, kind: pa.DataType) -> None:
    tree(tmp_path / "images", "0.png", "1.png")
    paths = pa.array(["images/0.png", str(tmp_path / "images" / "1.png")]).cast(kind)
    source = find_source(written(tmp_path / "a.parquet", {column: paths, "label": [1, 0]}))
    assert [source.read(index) for index in range(2)] == [png(0), png(1)]
    assert labels(source) == ["1", "0"]


@pytest.mark.parametrize("values", [["owl", "eel", None, "owl"], [2, 0, None, 2]])
@pytest.mark.parametrize("index", [pa.int8(), pa.int32()])
def test_labels_as_a_dictionary(tmp_path: Path, values: list[Any], index: pa.DataType) -> None:
    plain = pa.array(values)
    column = plain.dictionary_encode().cast(pa.dictionary(index, plain.type))
    source = find_source(written(tmp_path / "a.parquet", {"image": [png(n) for n in range(4)], "label": column}))
    assert labels(source) == [None if value is None else str(value) for value in values]


def test_files_with_their_columns_in_different_orders(tmp_path: Path) -> None:
    written(tmp_path / "a.parquet", {"image": [png(0)], "id": [7], "label": pa.array([1], pa.int8())})
    written(tmp_path / "b.parquet", {"label": pa.array([0], pa.int64()), "image": [png(1)], "id": [8]})
    source = find_source(str(tmp_path))
    assert [source.read(index) for index in range(2)] == [png(0), png(1)]
    assert labels(source) == ["1", "0"]
    written(tmp_path / "c.parquet", {"image": [png(1)], "label": [0]})
    assert "its columns differ from those of a.parquet, by id" in refusal(tmp_path)


def test_files_that_name_their_classes_differently_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [(png(0), 0)], ("cat", "dog"))
    write_parquet(tmp_path / "b.parquet", [(png(1), 0)], ("dog", "cat"))
    assert "names other classes than a.parquet" in refusal(tmp_path)


class TestTwoColumnsOfImages:
    def test_the_one_with_the_usual_name_is_taken_and_the_other_said(self, tmp_path: Path) -> None:
        text = written(tmp_path / "a.parquet", {"mask": [png(9)], "image": [png(1)]})
        source = find_source(text)
        assert source.read(0) == png(1)
        assert "column mask is left out, as image holds the images" in source.passed_over.words()
        assert find_source(text, "mask").read(0) == png(9)

    def test_the_hubs_datasets_are_held_to_the_same(self, tmp_path: Path, in_every_form: dict[str, str]) -> None:
        assert in_every_form  # its cache is a temporary one
        features = {name: {"_type": "Image"} for name in ("mask", "image")}
        images = {name: [{"bytes": png(value), "path": f"{name}.png"}] for name, value in (("mask", 9), ("image", 1))}
        table = pa.table(images).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        (tmp_path / "hub").mkdir()
        pq.write_table(table, tmp_path / "hub" / "train-00000-of-00001.parquet")
        source = find_source(f"hf:{tmp_path}/hub@train")
        assert source.read(0) == png(1)
        assert "column mask is left out" in source.passed_over.words()

    def test_where_no_name_tells_it_has_to_be_said(self, tmp_path: Path) -> None:
        text = written(tmp_path / "a.parquet", {"left": [png(1)], "right": [png(2)]})
        assert refusal(text).endswith("say which is meant: --image-column left or --image-column right")
        assert find_source(text, "right").read(0) == png(2)

    def test_a_column_that_is_not_there_or_holds_no_images(self, tmp_path: Path) -> None:
        text = written(tmp_path / "a.parquet", {"left": [png(1)], "label": [2]})
        assert "has no column 'top'; there are left, label" in refusal(text, image_column="top")
        assert "column label holds int64" in refusal(text, image_column="label")

    def test_the_command_line_takes_it(self, tmp_path: Path, maekit_here) -> None:
        text = written(tmp_path / "a.parquet", {"left": [png(1)], "right": [b"no picture"]})
        assert maekit_here("data", text, "--image-column", "left", "--workers", "0").returncode == 0
        assert maekit_here("data", text, "--image-column", "right", "--workers", "0").returncode == 1
        assert maekit_here("data", text, "--workers", "0").returncode == 1


def test_a_column_named_for_what_has_none_is_said(tmp_path: Path) -> None:
    source = find_source(str(tree(tmp_path, "1.png")), "left")
    assert "so --image-column left says nothing" in source.passed_over.words()


def test_a_row_without_an_image_is_an_unreadable_image(tmp_path: Path, maekit_here) -> None:
    text = written(tmp_path / "a.parquet", {"image": [png(1), None], "label": [0, 1]})
    assert "the row holds no image" in maekit_here("data", text, "--workers", "0").stdout
