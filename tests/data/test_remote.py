"""Sources elsewhere: what goes wrong on the way, what is kept, what a URL names."""

import base64
import hashlib
import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import fsspec
import huggingface_hub.constants
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_server import FileServer, serving
from PIL import Image
from source_forms import write_parquet, write_shard

import tiny
from maekit.config import AugmentConfig, DataConfig
from maekit.data import copies
from maekit.data.cache import clear, size_of
from maekit.data.loader import BadImages, train_batches
from maekit.data.sources import Source, Space, open_source, remote
from maekit.data.sources.held_out import hold_out, say_shared
from maekit.errors import DataError
from processes import in_two_processes, maekit

PER_FILE = 4


def picture(number: int) -> bytes:
    written = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(written, "PNG")
    return written.getvalue()


def shard(number: int, to: Path) -> bytes:
    members: dict[str, bytes] = {}
    for place in range(PER_FILE):
        members[f"{place:03d}.png"] = picture(number * PER_FILE + place)
        members[f"{place:03d}.cls"] = str(place % 2).encode()
    write_shard(to / "shard.tar", members)
    return (to / "shard.tar").read_bytes()


def parquet(number: int, to: Path) -> bytes:
    rows = [(picture(number * PER_FILE + place), place % 2) for place in range(PER_FILE)]
    write_parquet(to / "rows.parquet", rows, group=3)
    return (to / "rows.parquet").read_bytes()


MAKE: dict[str, Callable[[int, Path], bytes]] = {"tar": shard, "parquet": parquet}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "_PAUSES", (0.01, 0.02))
    return tmp_path / "cache"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as running:
        yield running


@pytest.fixture(params=MAKE)
def suffix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def put(server: FileServer, suffix: str, to: Path, files: int = 1) -> str:
    for number in range(files):
        server.put(f"part-{number}.{suffix}", MAKE[suffix](number, to))
    return f"{server.url}/part-{{0..{files - 1}}}.{suffix}"


def all_right(source: Source) -> bool:
    return [source.read(index) for index in range(len(source))] == [picture(index) for index in range(len(source))]


class TestFailures:
    @pytest.mark.parametrize("fault", ["cut", "short", "long", 503, 429, 0.2])
    def test_what_passes_is_tried_again(
        self, server: FileServer, tmp_path: Path, suffix: str, fault: int | str
    ) -> None:
        url = put(server, suffix, tmp_path)
        server.ranges = False
        server.faults[f"part-0.{suffix}"] = [fault, fault]
        source = open_source(url)
        assert all_right(source)
        assert server.gets[f"part-0.{suffix}"] >= (1 if fault == 0.2 else 3)

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [("cut", "payload"), ("short", "bytes came of"), ("long", "bytes came of"), (503, "503 Service Unavailable")],
    )
    def test_what_does_not_pass_is_one_line(
        self, server: FileServer, tmp_path: Path, fault: int | str, reason: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.faults["part-0.tar"] = [fault] * 9
        with pytest.raises(DataError) as failed:
            open_source(put(server, "tar", tmp_path))
        line = str(failed.value)
        assert line.startswith(f"{server.url}/part-0.tar: ")
        assert reason in line
        assert "\n" not in line
        assert server.gets["part-0.tar"] == 3
        assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
        assert not list(copies.folder().glob("*.maekit-*"))

    @pytest.mark.parametrize(("status", "reason"), [(404, "404 Not Found"), (403, "403 Forbidden")])
    def test_what_will_not_pass_is_not_tried_again(self, server: FileServer, status: int, reason: str) -> None:
        server.put("gone.tar", b"")
        server.refused["gone.tar"] = status
        with pytest.raises(DataError, match=f"{server.url}/gone.tar: {reason}"):
            open_source(f"{server.url}/gone.tar")
        assert server.heads["gone.tar"] == 1

    def test_a_server_that_is_not_there(self) -> None:
        with pytest.raises(DataError, match=r"^http://127.0.0.1:9/a.tar: Cannot connect to host"):
            open_source("http://127.0.0.1:9/a.tar")

    def test_a_connection_that_falls_silent_is_given_up(
        self, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(remote, "_SILENCE", 0.2)
        server.faults["part-0.tar"] = [1.0]
        assert all_right(open_source(put(server, "tar", tmp_path)))
        assert server.gets["part-0.tar"] == 2

    def test_content_that_changes_is_refused_whatever_its_length(self, server: FileServer, tmp_path: Path) -> None:
        for change in (lambda data: data[::-1], lambda data: data + bytes(512)):
            url = put(server, "tar", tmp_path)
            source = open_source(url)
            for copy in copies.folder().glob("*.maekit-copy"):
                copy.unlink()
            server.put("part-0.tar", change(server.files["part-0.tar"]))
            with pytest.raises(DataError, match=r"part-0.tar: has changed since it was opened"):
                source.read(0)

    def test_a_hash_that_is_announced_is_looked_at(self, server: FileServer, tmp_path: Path) -> None:
        url = put(server, "tar", tmp_path)
        content = server.files["part-0.tar"]
        server.headers["part-0.tar"]["Content-MD5"] = base64.b64encode(hashlib.md5(content).digest()).decode()
        assert all_right(open_source(url))
        server.put("part-0.tar", content[:-1] + b"x")
        with pytest.raises(DataError, match="its md5 is not the one that is announced"):
            open_source(url)

    def test_a_size_that_is_not_said_is_refused(self, server: FileServer) -> None:
        server.put("a.tar", b"some")
        server.sizes = False
        with pytest.raises(DataError, match=r"a.tar: its size is not said"):
            open_source(f"{server.url}/a.tar")

    def test_damaged_files_are_named_by_their_urls(self, server: FileServer) -> None:
        for name in ("a.tar", "a.parquet"):
            server.put(name, b"nothing of the kind" * 100)
            with pytest.raises(DataError, match=rf"^{server.url}/{name}: not "):
                open_source(f"{server.url}/{name}")

    def test_a_disk_that_is_full_is_said_at_once(
        self, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        url = put(server, "tar", tmp_path)
        system, _ = remote.system_of(url)
        monkeypatch.setattr(system, "get_file", full)
        with pytest.raises(DataError, match=r"part-0.tar: cannot be kept in .*elsewhere \(No space left on device\)"):
            open_source(url)

    def test_workers_hand_the_line_back(self, server: FileServer, tmp_path: Path) -> None:
        url = put(server, "tar", tmp_path, files=2)
        source = open_source(url)
        for copy in copies.folder().glob("*.maekit-copy"):
            copy.unlink()
        server.faults["part-1.tar"] = [503] * 99
        with pytest.raises(DataError) as failed:
            order(source, workers=2)
        assert str(failed.value) == f"{server.url}/part-1.tar: 503 Service Unavailable"


def order(source: Source, *, workers: int = 0, rank: int = 0, ranks: int = 1, start: int = 0) -> list[list[int]]:
    """The images of twelve steps of eight, as one rank sees them; each has to be the one it is said to be."""
    batches = train_batches(
        source, DataConfig(workers=workers), AugmentConfig(crop="none", flip=0), image_hw=(8, 8), channels=3, seed=0,
        batch_size=8, micro_batch=4, start_step=start, total_steps=12, rank=rank, world_size=ranks,
        bad=BadImages(source, 0),
    )  # fmt: skip
    found: list[list[int]] = []
    for batch in batches:
        assert (batch.images.amax((1, 2, 3)) == batch.indices).all()
        found.append(batch.indices.tolist())
    return found


class TestKept:
    def test_a_file_is_fetched_once(self, server: FileServer, tmp_path: Path, suffix: str) -> None:
        url = put(server, suffix, tmp_path, files=3)
        for _ in range(2):
            assert all_right(open_source(url))
        assert [server.gets[f"part-{number}.{suffix}"] for number in range(3)] == [1, 1, 1]

    def test_of_parquet_the_labels_alone_are_read_at_the_start(self, server: FileServer, tmp_path: Path) -> None:
        source = open_source(put(server, "parquet", tmp_path, files=2))
        assert source.label(5) == 1
        assert source.classes == ("rough", "smooth")
        assert server.gets["part-0.parquet"] == 0
        parts = server.gets["part-0.parquet part"]
        open_source(put(server, "parquet", tmp_path, files=2))
        assert server.gets["part-0.parquet part"] == parts > 0

    def test_new_content_under_an_old_name_is_fetched_and_indexed_anew(
        self, server: FileServer, tmp_path: Path, suffix: str
    ) -> None:
        url = put(server, suffix, tmp_path)
        open_source(url)
        server.put(f"part-0.{suffix}", MAKE[suffix](1, tmp_path))
        assert open_source(url).read(0) == picture(PER_FILE)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_training_on_more_than_the_cache_holds(
        self, server: FileServer, tmp_path: Path, suffix: str, workers: int
    ) -> None:
        url = put(server, suffix, tmp_path, files=8)
        size = max(map(len, server.files.values()))
        source = open_source(url, space=Space(limit=6.1 * size / 1e9, window=2 * size / 1e9))
        whole = order(source, workers=workers)
        epoch = [index for batch in whole[:8] for index in batch]
        assert sorted(epoch) == list(range(32))
        files = [index // PER_FILE for index in epoch]
        for window in range(4):  # of two files each
            assert len(set(files[8 * window : 8 * window + 8])) == 2
        held = sum(map(size_of, copies.folder().glob("*.maekit-copy")))  # threads may still fetch
        assert 0 < held <= 6.1 * size
        assert order(open_source(url)) != whole  # all fit one window
        assert order(source, start=5) == whole[10:]
        shares = [order(source, rank=rank, ranks=2) for rank in range(2)]
        assert [sorted(a + b) for a, b in zip(*shares, strict=True)] == [
            sorted(a + b) for a, b in zip(whole[::2], whole[1::2], strict=True)
        ]

    def test_part_of_a_source_keeps_the_windows(self, server: FileServer, tmp_path: Path) -> None:
        url = put(server, "tar", tmp_path, files=8)
        size = len(server.files["part-0.tar"]) / 1e9
        train, _ = hold_out(open_source(url, space=Space(6.1 * size, 2 * size)), 0.25, seed=0)
        names = [[train.path(index).split(":")[2] for index in batch] for batch in order_of_any(train)]
        epoch = [name for batch in names for name in batch][: len(train)]
        assert sum(a != b for a, b in pairwise(dict.fromkeys(epoch))) == 7
        assert len(set(epoch[:4])) <= 2

    def test_a_cache_that_is_cleared_is_filled_again(self, server: FileServer, tmp_path: Path, suffix: str) -> None:
        source = open_source(put(server, suffix, tmp_path))
        assert all_right(source)
        assert clear() > 0
        assert all_right(source)

    def test_a_cache_that_is_cleared_while_a_file_is_fetched(
        self, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = open_source(put(server, "tar", tmp_path))
        clear()
        system, _ = remote.system_of(server.url)
        fetch, times = system.get_file, []

        def cleared(*words: str) -> None:
            fetch(*words)
            times.append(1)
            if len(times) == 1:
                clear()

        monkeypatch.setattr(system, "get_file", cleared)
        assert all_right(source)
        assert len(times) == 2

    @pytest.mark.parametrize(("limit", "window"), [(2.5, 1.0), (2.9, 2.0)])
    def test_too_little_room_is_refused(self, server: FileServer, tmp_path: Path, limit: float, window: float) -> None:
        url = put(server, "tar", tmp_path, files=8)
        size = len(server.files["part-0.tar"]) / 1e9
        with pytest.raises(
            DataError, match=r"part-{0..7}.tar: .* GB in files of up to .* GB need .* GB in .*, where --cache-limit"
        ):
            open_source(url, space=Space(limit * size, window * size))
        assert len(open_source(url, space=Space(8 * size, 4 * size))) == 32  # all at once

    def test_bad_images_are_those_of_any_source(self, server: FileServer, tmp_path: Path, suffix: str) -> None:
        rows = [(picture(0), 0), (b"broken", 1), (picture(2), 0)]
        if suffix == "tar":
            write_shard(tmp_path / "a.tar", {f"{number}.png": data for number, (data, _) in enumerate(rows)})
        else:
            write_parquet(tmp_path / "a.parquet", rows)
        url = server.put(f"a.{suffix}", (tmp_path / f"a.{suffix}").read_bytes())
        source = open_source(url)
        bad = BadImages(source, 0.5)
        batches = train_batches(
            source, DataConfig(workers=0), AugmentConfig(), image_hw=(8, 8), channels=3, seed=0, batch_size=6,
            micro_batch=6, start_step=0, total_steps=1, rank=0, world_size=1, bad=bad,
        )  # fmt: skip
        assert set(next(batches).indices.tolist()) == {0, 2}
        assert [path for path, _ in bad.found()] == [source.path(1)]

    def test_training_images_are_not_fetched_to_be_compared(self, server: FileServer, tmp_path: Path) -> None:
        source = open_source(put(server, "parquet", tmp_path, files=2))
        assert say_shared(source, open_source(put(server, "parquet", tmp_path, files=1))) == PER_FILE  # by name
        server.put("other.parquet", server.files["part-0.parquet"])
        assert say_shared(source, open_source(f"{server.url}/other.parquet")) == 0
        assert not any(" " not in name for name in server.gets)


def order_of_any(source: Source) -> list[list[int]]:
    batches = train_batches(
        source, DataConfig(workers=0), AugmentConfig(), image_hw=(8, 8), channels=3, seed=0, batch_size=4,
        micro_batch=4, start_step=0, total_steps=6, rank=0, world_size=1, bad=BadImages(source, 0),
    )  # fmt: skip
    return [batch.indices.tolist() for batch in batches]


class TestNames:
    """What a URL names, in fsspec's own file system in memory, which can be listed."""

    @pytest.fixture(autouse=True)
    def store(self, tmp_path: Path) -> Iterator[fsspec.AbstractFileSystem]:
        store = fsspec.filesystem("memory")
        for number in range(2):
            store.pipe(f"/photos/train-{number}.tar", shard(number, tmp_path))
        store.pipe("/photos/val-0.tar", shard(2, tmp_path))
        store.pipe("/photos/README.md", b"read me")
        store.pipe("/hub/data/train-00000-of-00002.parquet", parquet(0, tmp_path))
        store.pipe("/hub/data/train-00001-of-00002.parquet", parquet(1, tmp_path))
        store.pipe("/hub/data/test-00000-of-00001.parquet", parquet(2, tmp_path))
        store.pipe("/mixed/a.tar", b"")
        store.pipe("/mixed/a.parquet", b"")
        store.pipe("/notes/note.txt", b"a note")
        store.pipe("/notes/more.heic", b"an image")
        yield store
        store.rm("/", recursive=True)

    @pytest.mark.parametrize(
        ("url", "first", "files"),
        [
            ("memory://photos/train-1.tar", 1, 1),
            ("memory://photos/train-*.tar", 0, 2),
            ("memory://photos/train-{0,1}.tar", 0, 2),
            ("memory://photos@train", 0, 2),
            ("memory://photos/@val", 2, 1),
            ("memory://photos@train+val", 0, 3),
            ("memory://hub@train", 0, 2),
            ("memory://hub/data@test", 2, 1),
        ],
    )
    def test_files_folders_patterns_and_splits(self, url: str, first: int, files: int) -> None:
        source = open_source(url)
        assert len(source) == files * PER_FILE
        assert source.read(0) == picture(first * PER_FILE)
        assert source.path(0).startswith("memory://")
        beside = {".md": 1} if "photos" in url and "@" in url else {}
        assert source.passed_over.beside == beside

    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("memory://photos", r"memory://photos: holds several splits, train \(2 .tar files\), val \(1 .tar file\)"),
            ("memory://photos/*.tar", r"holds several splits, .*photos/\*.tar@train"),
            ("memory://hub@validation", "memory://hub: has no split 'validation'; there are train, test"),
            ("memory://nowhere", "memory://nowhere: no such file or folder"),
            ("memory://nowhere/a.tar", r"memory://nowhere/a.tar: no such file$"),
            ("memory://notes", r"memory://notes: holds no .tar or .parquet file; .* passed over: 1 .heic; .* 1 .txt"),
            ("memory://mixed", r"holds 1 .parquet file .* and 1 .tar file .*: 'memory://mixed/\*.parquet' or 'mem"),
            ("https://example.org/photos/", r"HTTP lists no folder: name each, as in shard-\{000..099\}.tar"),
            ("https://example.org/*.tar", r"HTTP lists no folder"),
            ("nonsense://a/b.tar", r"nonsense://a/b.tar: cannot be opened \(Protocol not known: nonsense\)"),
        ],
    )
    def test_what_cannot_be_meant_is_one_line(self, url: str, reason: str) -> None:
        with pytest.raises(DataError, match=reason) as failed:
            open_source(url)
        assert "\n" not in str(failed.value)

    @pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
    def test_a_package_that_is_missing_is_named(
        self, scheme: str, package: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(DataError, match=rf"{package} .*: pip install 'maekit\[remote\]'"):
            open_source(f"{scheme}://bucket/a.tar")

    def test_what_is_secret_in_a_url_is_not_shown(self, server: FileServer, tmp_path: Path) -> None:
        put(server, "tar", tmp_path)
        url = f"http://me:word@{server.url[7:]}/part-0.tar?signature=abc"
        source = open_source(url)
        shown = f"{server.url}/part-0.tar"
        assert (source.text, source.path(0)) == (shown, f"{shown}:000.png")

    def test_columns_that_differ_are_said_by_url(self, store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
        table = pq.read_table(io.BytesIO(parquet(0, tmp_path)))
        pq.write_table(table.append_column("more", pa.array([0] * PER_FILE)), tmp_path / "more.parquet")
        store.pipe("/odd/b.parquet", (tmp_path / "more.parquet").read_bytes())
        store.pipe("/odd/a.parquet", parquet(0, tmp_path))
        with pytest.raises(DataError) as failed:
            open_source("memory://odd/*.parquet")
        assert str(failed.value) == "memory:///odd/b.parquet: its columns differ from those of a.parquet, by more"

    def test_rows_that_name_files_hold_no_image(self, store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
        cells = [{"bytes": picture(0), "path": "0.png"}, {"bytes": None, "path": "1.png"}, None]
        pq.write_table(pa.table({"image": cells}), tmp_path / "a.parquet")
        store.pipe("/rows/a.parquet", (tmp_path / "a.parquet").read_bytes())
        source = open_source("memory://rows/a.parquet")
        assert source.read(0) == picture(0)
        for index in (1, 2):
            with pytest.raises(DataError, match="the row holds no image"):
                source.read(index)


class TestHub:
    def test_a_dataset_is_read_file_by_file(
        self, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By the hub's own client, from a stand-in for the hub."""
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": server.url})
        monkeypatch.setattr(remote, "_systems", {})
        files = []
        for number, name in enumerate(("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001")):
            path, content = f"data/{name}.parquet", parquet(number, tmp_path)
            server.put(f"datasets/some/pictures/resolve/main/{path}", content)
            files.append({"type": "file", "oid": str(number) * 40, "size": len(content), "path": path})
        about = "api/datasets/some/pictures"
        server.put(about, json.dumps({"id": "some/pictures"}).encode())
        for folder in ("", "/data"):
            server.put(f"{about}/tree/main{folder}", json.dumps(files).encode())
        server.headers[f"{about}/revision/train"]["X-Error-Code"] = "RevisionNotFound"

        source = open_source("hf://datasets/some/pictures@train")
        assert source.classes == ("rough", "smooth")
        assert source.path(5) == "hf://datasets/some/pictures/data/train-00001-of-00002.parquet:1"
        assert all_right(source)
        whole = [name for name in server.gets if name.endswith(".parquet")]
        assert len(whole) == 2  # nothing of the other split
        server.headers["api/datasets/some/nothing"]["X-Error-Code"] = "RepoNotFound"
        with pytest.raises(DataError, match=r"^hf://datasets/some/nothing: no such file or folder$"):
            open_source("hf://datasets/some/nothing")


def trained(url: str, out: Path, *more: str) -> int:
    words = ("--lr", "1e-3", "--batch-size", "8", "--steps", "8", "--workers", "1", "--run.log-every", "1")
    return maekit("pretrain", "vit-tiny", "--data", url, *tiny.SIZES, *words, "--out", out, *more)


@pytest.mark.slow
def test_trainings_and_verbs_on_images_elsewhere(server: FileServer, tmp_path: Path) -> None:
    """With a worker process, two ranks, and a cache that holds a part."""
    url = put(server, "tar", tmp_path, files=8)
    size = len(server.files["part-0.tar"]) / 1e9
    room = ("--data.cache-limit", f"{6.1 * size}", "--data.window", f"{2 * size}")
    assert trained(url, tmp_path / "one", *room) == 0
    said = in_two_processes(trained, url, tmp_path / "two", *room)
    assert [one.value for one in said] == [0, 0], said[0].err
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("one", "two")
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert trained(url, tmp_path / "one", *room[:2], "--data.window", f"{size}", "--resume") == 1  # another order
    assert maekit("data", url, "--cache-limit", f"{6.1 * size}", "--workers", "0") == 0
    assert maekit("data", "--clear-cache") == 0
    assert not list(copies.folder().rglob("*.maekit-*"))
