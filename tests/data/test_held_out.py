"""Images to judge by: held out by seed and class, and never unknowingly learned from."""

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from source_forms import write_parquet, write_shard
from trees import png, tree

from maekit.data.sources import find_source, open_source
from maekit.data.sources.held_out import hold_out, say_shared
from maekit.data.sources.source import Source
from maekit.data.sources.subset import SubsetSource
from maekit.errors import DataError


def paths(source: Source) -> list[str]:
    return [source.path(index) for index in range(len(source))]


def test_a_share_of_each_class_is_held_out_by_the_seed() -> None:
    whole = open_source("digits:train")
    train, val = hold_out(whole, 0.1, 3)
    assert sorted(paths(train) + paths(val)) == sorted(paths(whole))
    assert not {*paths(train)} & {*paths(val)}
    everywhere, held = (Counter(source.label(index) for index in range(len(source))) for source in (whole, val))
    assert {label: round(0.1 * count) for label, count in everywhere.items()} == held
    assert train.classes == val.classes == whole.classes
    assert paths(hold_out(whole, 0.1, 3)[1]) == paths(val)
    assert paths(hold_out(whole, 0.1, 4)[1]) != paths(val)
    assert train.fingerprint() != val.fingerprint() != whole.fingerprint()


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_small_classes_keep_an_image_and_give_one(tmp_path: Path, share: float, caplog) -> None:
    names = [f"{name}/{number}.png" for name, count in (("a", 1), ("b", 2), ("c", 5)) for number in range(count)]
    with caplog.at_level(logging.INFO, logger="maekit"):
        train, val = hold_out(find_source(str(tree(tmp_path, *names))), share, 0)
    learned, held = (
        np.bincount([source.label(i) or 0 for i in range(len(source))], minlength=3) for source in (train, val)
    )
    assert learned.min() == 1
    assert held.tolist() == [0, 1, {0.01: 1, 0.5: 2, 0.99: 4}[share]]
    assert "1 classes have one image, which is learned from and not judged by" in caplog.text
    assert f"{len(train)} images are learned from, {len(val)} are held out" in caplog.text


def test_nothing_to_hold_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none can be held out; name images with --val"):
        hold_out(find_source(str(tree(tmp_path, "a/1.png", "b/1.png"))), 0.5, 0)


class TestShared:
    def said(self, train: Source, val: Source, caplog: pytest.LogCaptureFixture) -> str:
        with caplog.at_level(logging.WARNING, logger="maekit"):
            say_shared(train, val)
        return caplog.text

    def test_the_same_source(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        source = find_source(str(tree(tmp_path, "a/1.png", "b/2.png")))
        assert "2 of its 2 images are training images too (the same files)" in self.said(source, source, caplog)

    def test_files_by_however_their_paths_are_spelt(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        folder = tree(tmp_path, *(f"{number}.png" for number in range(6)))
        (folder / "train.csv").write_text(f"0.png\n./1.png\n{folder}/2.png\n3.png\n4.png\n")
        (folder / "val.csv").write_text(f"{folder}/0.png\n1.png\n2.png\n./4.png\n5.png\n")
        train, val = (find_source(f"{folder}/{name}.csv") for name in ("train", "val"))
        assert "4 of its 5 images are training images too (the same files)" in self.said(train, val, caplog)
        caplog.clear()
        part = SubsetSource(train, np.array([1, 2, 3]))
        assert "2 of its 5 images are training images too (the same files)" in self.said(part, val, caplog)

    @pytest.mark.parametrize("form", ["folder", "parquet", "tar"])
    def test_the_same_bytes_in_whatever_form(self, tmp_path: Path, caplog: pytest.LogCaptureFixture, form: str) -> None:
        tree(tmp_path / "train", *(f"{number}.png" for number in range(6)))
        pictures = {"4.png": png(4), "8.png": png(8), "9.png": png(9)}
        if form == "folder":
            tree(tmp_path / "val", "4.png", start=4)
            tree(tmp_path / "val", "8.png", "9.png", start=8)
        elif form == "tar":
            write_shard(tmp_path / "val", pictures)
            (tmp_path / "val").rename(tmp_path / "val.tar")
        else:
            write_parquet(tmp_path / "val.parquet", [(data, 0) for data in pictures.values()])
        text = str(tmp_path / "val") + {"folder": "", "parquet": ".parquet", "tar": ".tar"}[form]
        said = self.said(find_source(str(tmp_path / "train")), find_source(text), caplog)
        assert f"{text}: 1 of its 3 images are training images too (the same bytes)" in said

    def test_disjoint_sources_are_not_spoken_of(self, caplog: pytest.LogCaptureFixture) -> None:
        assert not self.said(find_source("digits:train"), find_source("digits:test"), caplog)

    def test_of_a_large_parquet_file_few_row_groups_are_read(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("maekit.data.sources.held_out._UNSIZED", 20)
        monkeypatch.setattr("maekit.data.sources.held_out._RUN", 10)
        write_parquet(tmp_path / "train.parquet", [(png(number), 0) for number in range(200)], group=10)
        tree(tmp_path / "val", "0.png")
        train, read = find_source(str(tmp_path / "train.parquet")), set()
        rows = train._rows  # type: ignore[attr-defined]
        monkeypatch.setattr(train, "_rows", lambda group: read.add(group) or rows(group), raising=False)
        assert "1 of its 1 images" in self.said(train, find_source(str(tmp_path / "val")), caplog)
        assert len(read) == 2

    def test_an_unreadable_image_is_none(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        tree(tmp_path, "a/1.png")
        (tmp_path / "list.txt").write_text("a/1.png\nb/gone.png\n")
        listed = find_source(str(tmp_path / "list.txt"))
        assert "1 of its 2 images" in self.said(find_source(str(tmp_path / "a")), listed, caplog)
