"""Sources elsewhere: what a URL names, and trainings on it."""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import huggingface_hub.constants
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_server import FileServer
from remote_images import PER_FILE, all_right, parquet, picture, put, shard

import tiny
from maekit.data import copies
from maekit.data.sources import open_source, remote
from maekit.errors import DataError
from processes import in_two_processes, maekit

pytestmark = pytest.mark.usefixtures("cache")


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
