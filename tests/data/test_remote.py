"""Sources elsewhere: what goes wrong on the way, and what is kept."""

import base64
import hashlib
import logging
from itertools import pairwise
from pathlib import Path

import pytest
from file_server import FileServer
from remote_images import MAKE, PER_FILE, all_right, picture, put
from source_forms import write_parquet, write_shard

from maekit.config import AugmentConfig, DataConfig
from maekit.data import copies
from maekit.data.cache import clear, size_of
from maekit.data.loader import BadImages, train_batches
from maekit.data.sources import Source, Space, open_source, remote
from maekit.data.sources.held_out import hold_out, say_shared
from maekit.errors import DataError

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(params=MAKE)
def suffix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


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
