"""Images of parquet files in any order: copied once, gone on with, never more than there is room for, never needed."""

import pickle
import threading
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_forms import write_parquet
from trees import png, tree

import tiny
from maekit.config.verbs import DataOptions
from maekit.data import cache
from maekit.data.sources import find_source, in_any_order, parquet
from maekit.data.sources.image_copy import _Copy
from maekit.data.sources.parquet import ParquetSource
from maekit.engine import metrics
from maekit.errors import ImageError
from maekit.inference import doctor
from maekit.recipes import pretrain

PICTURES = [png(number) for number in range(23)]
LIMIT = 1e9


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder, and no source so small that none is copied."""
    monkeypatch.setenv("MAEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(parquet, "_CACHE_BYTES", 0)
    return tmp_path / "cache"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two files of row groups of five."""
    (tmp_path / "files").mkdir()
    for name, pictures in (("a", PICTURES[:12]), ("b", PICTURES[12:])):
        write_parquet(tmp_path / "files" / f"{name}.parquet", [(data, 0) for data in pictures], group=5)
    return tmp_path / "files"


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The row groups that were copied."""
    copied: list[tuple[str, int]] = []
    group = _Copy._group

    def spy(copy: _Copy, file: pq.ParquetFile, number: int, rows: int) -> object:
        copied.append((copy._file.name, number))
        return group(copy, file, number, rows)

    monkeypatch.setattr(_Copy, "_group", spy)
    return copied


def ready(folder: Path, limit: float = LIMIT) -> ParquetSource:
    source = find_source(str(folder))
    assert isinstance(source, ParquetSource)
    in_any_order(source, limit)
    return source


def read(source: ParquetSource, *, without_groups: bool = True) -> list[bytes]:
    """All images, from the last to the first."""
    if without_groups:
        source._rows = lambda _: pytest.fail("a row group was read")  # type: ignore[method-assign]
    return [source.read(index) for index in reversed(range(len(source)))][::-1]


def test_images_are_read_from_a_copy_that_is_made_once(files: Path, groups: list[tuple[str, int]]) -> None:
    assert read(ready(files)) == PICTURES
    assert len(groups) == 6
    assert read(pickle.loads(pickle.dumps(ready(files)))) == PICTURES
    assert len(groups) == 6
    write_parquet(files / "b.parquet", [(png(9), 0)] * 11)
    assert read(ready(files)) == [*PICTURES[:12], *[png(9)] * 11]
    assert groups[6:] == [("b.parquet", number) for number in range(3)]


def test_small_sources_paths_and_those_of_no_limit_are_not_copied(
    tmp_path: Path, files: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(files, 0)
    tree(tmp_path, "0.png")
    for name, column in (("text", ["0.png"]), ("pairs", [{"path": "0.png"}])):
        pq.write_table(pa.table({"image": column}), tmp_path / f"{name}.parquet")
        assert read(ready(tmp_path / f"{name}.parquet"), without_groups=False) == [png(0)]
    monkeypatch.setattr(parquet, "_CACHE_BYTES", 10**6)
    ready(files)
    assert not kept.exists()


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_rows_that_hold_no_bytes_are_read_as_ever(tmp_path: Path, kind: pa.DataType) -> None:
    tree(tmp_path, "0.png", "2.png")
    rows = [{"bytes": png(7), "path": "7"}, {"bytes": None, "path": "2.png"}, None, {"bytes": b"", "path": None}] * 3
    column = pa.array(rows, pa.struct({"bytes": kind, "path": pa.string()}))
    group = None if kind == pa.binary_view() else 5  # pyarrow cannot cut those
    pq.write_table(pa.table({"image": column}), tmp_path / "a.parquet", row_group_size=group)
    source = ready(tmp_path / "a.parquet")
    assert source._copies is not None
    assert [source.read(index) for index in (0, 1, 3, 4, 5, 8)] == [png(7), png(1), b"", png(7), png(1), png(7)]
    for index in (2, 6, 10):
        with pytest.raises(ImageError, match="the row holds no image"):
            source.read(index)
    pq.write_table(pa.table({"image": pa.array([png(0), None, png(1)], kind)}), tmp_path / "b.parquet")
    source = ready(tmp_path / "b.parquet")
    assert [source.read(index) for index in (0, 2)] == [png(0), png(1)]
    with pytest.raises(ImageError):
        source.read(1)


def test_a_copy_that_was_interrupted_is_gone_on_with(
    files: Path,
    groups: list[tuple[str, int]],
    kept: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    spied = _Copy._group

    def full(copy: _Copy, file: pq.ParquetFile, number: int, rows: int) -> object:
        if number == 2:
            raise OSError(28, "No space left on device")
        return spied(copy, file, number, rows)

    with monkeypatch.context() as patched:
        patched.setattr(_Copy, "_group", full)
        source = ready(files)
    assert "No space left on device" in caplog.text
    assert "reading them in any order is slow" in caplog.text
    assert read(source, without_groups=False) == PICTURES
    for part in kept.glob("*-part"):  # the beginning of a group
        with part.open("ab") as opened:
            opened.write(bytes(20))
    assert read(ready(files)) == PICTURES
    assert groups == [(f"{name}.parquet", number) for name in "ab" for number in range(3)]
    assert not [*kept.glob("*-part")]


def test_parts_that_do_not_belong_together_are_made_anew(files: Path, kept: Path) -> None:
    ready(files)
    for file in kept.glob("*.maekit-places"):
        file.rename(f"{file}-part")
    for file in kept.glob("*.maekit-images"):
        file.rename(f"{file}-part")
        Path(f"{file}-part").write_bytes(b"short")
    assert read(ready(files)) == PICTURES


def test_more_than_there_is_room_for_is_not_begun(files: Path, kept: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = ready(files, 100)
    assert "more than there is room for within --data.cache-limit" in caplog.text
    assert read(source, without_groups=False) == PICTURES
    assert not kept.exists()
    ready(files)
    caplog.clear()
    assert read(ready(files, 100)) == PICTURES  # it is there already
    assert not caplog.text


def test_clearing_makes_room_and_stops_nobody(files: Path, kept: Path) -> None:
    source = ready(files)
    (kept / "not ours").touch()
    cleared = doctor.run(DataOptions(clear_cache=True))
    assert cleared.freed is not None
    assert cleared.freed > sum(map(len, PICTURES))
    assert str(kept) in str(cleared)
    assert {file.suffix for file in kept.iterdir()} == {"", ".maekit-lock"}
    assert cache.size() == 0
    assert read(source, without_groups=False) == PICTURES
    assert read(ready(files)) == PICTURES


def test_several_who_copy_at_once_do_it_once(files: Path, groups: list[tuple[str, int]]) -> None:
    sources: list[ParquetSource] = []
    threads = [threading.Thread(target=lambda: sources.append(ready(files))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [read(source) for source in sources] == [PICTURES] * 4
    assert len(groups) == 6


def test_a_copy_that_another_machine_wrote_to_is_not_taken(
    files: Path, kept: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spied = _Copy._group

    def other(copy: _Copy, file: pq.ParquetFile, number: int, rows: int) -> object:
        with copy._parts[0].open("ab") as part:
            part.write(b"theirs")
        return spied(copy, file, number, rows)

    with monkeypatch.context() as patched:
        patched.setattr(_Copy, "_group", other)
        ready(files)
    assert "another process wrote to it at the same time" in caplog.text
    assert not [*kept.glob("*-part")]
    assert read(ready(files)) == PICTURES


def test_a_damaged_group_is_said_of_its_images_alone(files: Path) -> None:
    file = files / "a.parquet"
    data = bytearray(file.read_bytes())
    start = pq.read_metadata(file).row_group(1).column(0).data_page_offset
    data[start : start + 8] = bytes(8)
    file.write_bytes(data)
    source = ready(files)
    assert source._copies is not None
    assert [source.read(index) for index in (0, 11, 22)] == [PICTURES[index] for index in (0, 11, 22)]
    with pytest.raises(ImageError, match="row group"):
        source.read(7)


def test_training_reads_the_copy_and_learns_the_same(files: Path, kept: Path, tmp_path: Path) -> None:
    config = tiny.shrunk("vit-tiny")
    config = replace(
        config,
        validation=replace(config.validation, source=""),
        schedule=replace(config.schedule, epochs=None, steps=3, batch_size=8, micro_batch_size=8, warmup_epochs=0.1),
        run=replace(config.run, device="cpu", precision="fp32", log_every=1, tensorboard=False),
    )
    losses = []
    for limit in (0.0, 1.0):
        out = tmp_path / f"run-{limit}"
        data = replace(config.data, source=str(files), workers=0, cache_limit=limit)
        pretrain.run(replace(config, data=data, run=replace(config.run, out=str(out))))
        losses.append([record["loss"] for record in metrics.read(out / "metrics.jsonl")])
        assert kept.exists() == (limit > 0)
    assert losses[0] == losses[1]
