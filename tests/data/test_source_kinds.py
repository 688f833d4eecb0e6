"""What each kind of source takes, refuses and says."""

import io
import logging
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from source_forms import write_parquet, write_shard

from maekit.data.sources import open_images, open_source
from maekit.data.sources.shards import INDEX_SUFFIX
from maekit.errors import DataError, ImageError


def png(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def place(file: Path, data: bytes | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(png() if data is None else data)


def refusal(text: object) -> str:
    with pytest.raises(DataError) as caught:
        open_source(str(text))
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestFolder:
    def test_classes_are_top_level_folders_with_images_at_any_depth(self, tmp_path: Path) -> None:
        for name in ("b/deep/er/1.PNG", "a/2.jpeg", "a/.hidden.png", "a/notes.txt", ".git/3.png", "empty/readme.md"):
            place(tmp_path / name)
        source = open_source(str(tmp_path))
        assert source.classes == ("a", "b")
        assert [(source.path(i), source.label(i)) for i in range(len(source))] == [
            (str(tmp_path / "a/2.jpeg"), 0),
            (str(tmp_path / "b/deep/er/1.PNG"), 1),
        ]

    @pytest.mark.parametrize("names", [("1.png", "a/2.png", "b/3.png"), ("images/x/1.png", "images/y/2.png")])
    def test_images_in_the_root_or_in_one_folder_are_unlabelled(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        for name in names:
            place(tmp_path / name)
        source = open_source(str(tmp_path))
        assert source.classes is None
        assert {source.label(index) for index in range(len(source))} == {None}

    def test_an_image_that_makes_class_folders_unlabelled_is_named(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        for name in ("preview.png", "a/2.png", "b/3.png"):
            place(tmp_path / name)
        with caplog.at_level(logging.WARNING, logger="maekit"):
            open_source(str(tmp_path))
        assert "preview.png lies beside the 2 subfolders" in caplog.text

    def test_a_link_in_a_circle_ends(self, tmp_path: Path) -> None:
        place(tmp_path / "a/1.png")
        (tmp_path / "a/again").symlink_to(tmp_path)
        assert len(open_source(str(tmp_path))) == 1

    def test_fingerprint_follows_names_and_sizes_not_the_place(self, tmp_path: Path) -> None:
        for folder in ("one", "two"):
            place(tmp_path / folder / "1.png")
        before = open_source(str(tmp_path / "one")).fingerprint()
        assert open_source(str(tmp_path / "two")).fingerprint() == before
        place(tmp_path / "two/1.png", png() + b"longer")
        assert open_source(str(tmp_path / "two")).fingerprint() != before

    def test_refusals(self, tmp_path: Path) -> None:
        (tmp_path / "flowers").mkdir()
        assert "holds no image" in refusal(tmp_path / "flowers")
        assert f"did you mean {tmp_path / 'flowers'}?" in refusal(tmp_path / "flower")
        assert "no source is named" in refusal("")
        place(tmp_path / "x.png")
        assert "is one image" in refusal(tmp_path / "x.png")


class TestList:
    def test_spaces_and_commas_in_paths_survive(self, tmp_path: Path) -> None:
        names = ["a b,c.jpeg", "x, 1/y.png", "plain.png", "no label, really.png"]
        for name in names:
            place(tmp_path / name)
        (tmp_path / "list.txt").write_bytes(
            f"\ufeffpath, label\r\n{tmp_path}/a b,c.jpeg, 7\r\n\r\nx, 1/y.png,0\r\nplain.png ,-1\r\n"
            "no label, really.png\r\n".encode()
        )
        source = open_source(str(tmp_path / "list.txt"))
        assert [source.path(index) for index in range(4)] == [str(tmp_path / name) for name in names]
        assert [source.label(index) for index in range(4)] == [7, 0, None, None]
        assert source.classes == tuple("01234567")
        assert all(source.read(index) for index in range(4))

    def test_a_missing_file_is_an_unreadable_image(self, tmp_path: Path) -> None:
        place(tmp_path / "here.png")
        (tmp_path / "list.csv").write_text("gone.png\nhere.png")
        with pytest.raises(ImageError, match="no such file"):
            open_source(str(tmp_path / "list.csv")).read(0)

    def test_a_list_whose_files_are_not_there_is_refused_when_it_is_opened(self, tmp_path: Path) -> None:
        (tmp_path / "list.csv").write_text("# mine\n\ngone.png,0\naway.png,1\n")
        said = refusal(tmp_path / "list.csv")
        assert f"line 3: 'gone.png' is not there (looked for {tmp_path}/gone.png)" in said
        assert "a list has a line per image" in said
        (tmp_path / "list.csv").write_text("https://example.org/a.png,0\n")
        assert "line 1: 'https://example.org/a.png' is an address" in refusal(tmp_path / "list.csv")

    def test_refusals(self, tmp_path: Path) -> None:
        (tmp_path / "list.txt").write_text("\n\n")
        assert "holds no image" in refusal(tmp_path / "list.txt")
        (tmp_path / "list.bin").write_bytes(b"\0\1")
        assert "not text" in refusal(tmp_path / "list.bin")
        (tmp_path / "images.zip").write_bytes(b"PK\3\4\0\0")
        assert refusal(tmp_path / "images.zip").endswith("unpack it, or pack its images as .tar")
        place(tmp_path / "a.png")
        (tmp_path / "list.txt").write_text("a.png, 123456789")
        assert "label 123456789" in refusal(tmp_path / "list.txt")

    def test_images_named_one_by_one(self, tmp_path: Path) -> None:
        place(tmp_path / "x.png")
        source = open_images([tmp_path / "x.png"])
        assert source.read(0) == png()
        assert source.path(0) == str(tmp_path / "x.png")


class TestParquet:
    def test_rows_of_all_groups_and_files(self, tmp_path: Path) -> None:
        for name, start in (("b", 7), ("a", 0)):
            rows = [(png(value), value % 2) for value in range(start, start + 7)]
            write_parquet(tmp_path / f"{name}.parquet", rows, group=3)
        source = open_source(str(tmp_path))
        assert [source.read(index) for index in range(14)] == [png(value) for value in range(14)]
        assert source.path(8) == f"{tmp_path}/b.parquet:1"

    def test_other_columns_and_string_labels(self, tmp_path: Path) -> None:
        table = pa.table({"id": [1, 2, 3], "img": [png(1), png(2), None], "label": ["owl", None, "eel"]})
        pq.write_table(table, tmp_path / "x.parquet")
        source = open_source(str(tmp_path / "x.parquet"))
        assert source.classes == ("eel", "owl")
        assert [source.label(index) for index in range(3)] == [1, None, 0]
        assert source.read(1) == png(2)
        with pytest.raises(ImageError, match="no image"):
            source.read(2)

    def test_a_damaged_row_group_costs_its_own_images_only(self, tmp_path: Path) -> None:
        rows = [(png(value), 0) for value in range(6)]
        file = tmp_path / "x.parquet"
        write_parquet(file, rows, group=2)
        damaged = pq.read_metadata(file).row_group(1).column(0)
        start = damaged.dictionary_page_offset or damaged.data_page_offset
        content = bytearray(file.read_bytes())
        content[start : start + 40] = b"\xff" * 40
        file.write_bytes(content)
        source = open_source(str(file))
        assert [source.read(index) for index in (0, 5)] == [png(0), png(5)]
        with pytest.raises(ImageError, match="row group cannot be read"):
            source.read(2)

    def test_splits_are_not_mixed(self, tmp_path: Path) -> None:
        for split in ("train", "test"):
            write_parquet(tmp_path / f"{split}-00000-of-00001.parquet", [(png(), 0)])
        assert "several splits, train (1 .parquet file), test (1 .parquet file)" in refusal(tmp_path)
        assert len(open_source(f"{tmp_path}@train")) == 1
        assert len(open_source(f"{tmp_path}/train-*.parquet")) == 1

    def test_memory_is_bounded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("maekit.data.sources.parquet._CACHE_BYTES", 1000)
        write_parquet(tmp_path / "x.parquet", [(png(value), 0) for value in range(40)], group=2)
        source = open_source(str(tmp_path / "x.parquet"))
        order = np.random.default_rng(0).permutation(40).tolist()
        assert [source.read(index) for index in order] == [png(value) for value in order]
        assert sum(rows.nbytes for rows in source._cache.values()) <= 1000  # type: ignore[attr-defined]

    def test_refusals(self, tmp_path: Path) -> None:
        place(tmp_path / "x.parquet", b"not parquet")
        assert "not a readable parquet file" in refusal(tmp_path / "x.parquet")
        pq.write_table(pa.table({"text": ["a"]}), tmp_path / "y.parquet")
        assert "no column of images" in refusal(tmp_path / "y.parquet")
        write_parquet(tmp_path / "z.parquet", [(png(), 5)])
        assert "label 5, but 2 classes" in refusal(tmp_path / "z.parquet")


class TestShards:
    def test_samples_are_keyed_up_to_the_first_dot(self, tmp_path: Path) -> None:
        write_shard(
            tmp_path / "a.tar",
            {
                "x/1.jpg": png(1), "x/1.cls": b"owl", "x/1.seg.png": png(9),
                "2.caption.txt": b"no image", "._3.jpg": b"",
                "4.json": b'{"label": "eel"}', "4.png": png(4), "5.png": png(5), "5.json": b"damaged",
            },
        )  # fmt: skip
        source = open_source(str(tmp_path / "a.tar"))
        assert [source.read(index) for index in range(len(source))] == [png(1), png(4), png(5)]
        assert source.classes == ("eel", "owl")
        assert [source.label(index) for index in range(3)] == [1, 0, None]
        assert source.path(0) == f"{tmp_path}/a.tar:x/1.jpg"

    def test_the_index_is_kept_and_follows_the_shard(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shard = tmp_path / "a.tar"
        write_shard(shard, {"1.png": png(1)})
        open_source(str(shard))
        with monkeypatch.context() as patched:
            patched.setattr("tarfile.open", lambda *_: pytest.fail("the shard was read again"))
            assert len(open_source(str(shard))) == 1
        write_shard(shard, {"0.png": png(7), "1.png": png(1)})
        os.utime(shard, ns=(time.time_ns(), time.time_ns()))
        assert open_source(str(shard)).read(1) == png(1)
        (tmp_path / f"a.tar{INDEX_SUFFIX}").write_text("{")
        assert len(open_source(str(shard))) == 2

    def test_works_where_the_index_cannot_be_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        write_shard(tmp_path / "a.tar", {"1.png": png(1)})
        monkeypatch.setattr(np, "savez", refuse)
        with caplog.at_level(logging.INFO, logger="maekit"):
            assert open_source(str(tmp_path / "a.tar")).read(0) == png(1)
        assert "indexed each time" in caplog.text
        assert [file.name for file in tmp_path.iterdir()] == ["a.tar"]

    def test_braces_count_with_leading_zeros(self, tmp_path: Path) -> None:
        for number in range(8, 12):
            write_shard(tmp_path / f"s-{number:03d}.tar", {f"{number}.png": png(number)})
        source = open_source(f"{tmp_path}/s-{{008..011}}.tar")
        assert [source.read(index) for index in range(4)] == [png(number) for number in range(8, 12)]
        assert len(open_source(f"{tmp_path}/s-{{008,011}}.tar")) == 2
        assert "s-007.tar: cannot be read" in refusal(f"{tmp_path}/s-{{007..011}}.tar")
        assert "does not count upwards" in refusal(f"{tmp_path}/s-{{011..008}}.tar")

    def test_a_cut_shard_is_refused_by_name(self, tmp_path: Path) -> None:
        write_shard(tmp_path / "a.tar", {f"{number}.png": png(number) for number in range(40)})
        whole = (tmp_path / "a.tar").read_bytes()
        for length in (700, 20_500, 20_900):  # within content, header, header's end
            place(tmp_path / "a.tar", whole[:length])
            assert refusal(tmp_path / "a.tar").startswith(f"{tmp_path}/a.tar: not an uncompressed and complete tar")


class TestDigits:
    def test_the_split_is_fixed_stratified_and_disjoint(self) -> None:
        train, test, whole = (open_source(f"digits:{part}") for part in ("train", "test", ""))
        assert (len(train), len(test), len(whole)) == (1437, 360, 1797)
        paths = [{source.path(index) for index in range(len(source))} for source in (train, test)]
        assert not paths[0] & paths[1]
        counts = np.bincount([test.label(index) or 0 for index in range(360)])
        assert counts.min() >= 34
        assert counts.max() <= 37
        assert test.path(0) == "digits:21"
        images = np.stack([whole.read(index) for index in range(len(whole))])
        assert images.shape == (1797, 8, 8)
        assert (images.dtype, images.min(), images.max()) == (np.uint8, 0, 255)

    def test_no_other_part(self) -> None:
        assert "digits:train" in refusal("digits:val")


class TestHub:
    def test_a_split_has_to_be_named_among_several(self, tmp_path: Path, in_every_form: dict[str, str]) -> None:
        assert in_every_form  # its cache is a temporary one
        for split in ("train", "test"):
            for name in ("a", "b"):
                place(tmp_path / split / name / "1.png")
        assert "name one, as in" in refusal(f"hf:{tmp_path}")
        assert open_source(f"hf:{tmp_path}@test").classes == ("a", "b")
        assert "cannot be loaded" in refusal(f"hf:{tmp_path}@validation")
        assert "cannot be loaded" in refusal("hf:nobody/nothing@train")
