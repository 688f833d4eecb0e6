"""Tar shards elsewhere: what opening and reading them costs beside the same shards on a disk.

    python benchmarks/elsewhere.py --shards 24 --images 500 --rate 20 --latency 0.05

A local HTTP server in a process of its own sends at most --rate MB/s on a connection, --latency seconds after it was
asked. The same images are read, decoded and augmented in one process, by the order of two epochs: from disk; elsewhere,
all in one window; in windows of three shards and a cache of ten, with the next window fetched meanwhile and without.
"""

import argparse
import functools
import http.server
import io
import multiprocessing
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image
from results import write_result

from maekit.config import AugmentConfig, DataConfig
from maekit.data import cache, windows
from maekit.data.loader import BadImages, train_batches
from maekit.data.sources import Source, Space, open_source
from maekit.data.sources.elsewhere import Files

EPOCHS, BATCH, SIZE = 2, 64, 96


class Slow(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, at a rate."""

    protocol_version = "HTTP/1.1"
    rate, latency = 1e9, 0.0
    asked: Any = None

    def log_message(self, *_: object) -> None:
        pass

    def send_head(self) -> Any:
        time.sleep(self.latency)
        return super().send_head()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        began, sent = time.perf_counter(), 0
        while data := source.read(2**16):
            outputfile.write(data)
            sent += len(data)
            time.sleep(max(0.0, began + sent / self.rate - time.perf_counter()))
        with self.asked.get_lock():
            self.asked[0] += 1
            self.asked[1] += sent


def serve(folder: Path, rate: float, latency: float, port: Any, asked: Any) -> None:
    Slow.rate, Slow.latency, Slow.asked = rate, latency, asked
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Slow, directory=str(folder))) as server:
        port.put(server.server_address[1])
        server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=24)
    parser.add_argument("--images", type=int, default=500, help="in a shard")
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--beside", default="nothing", help="what else the machine did")
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        os.environ["MAEKIT_CACHE"] = str(folder / "cache")
        (folder / "shards").mkdir()
        sizes = [write(folder / "shards" / f"s-{number:02d}.tar", number, options.images)
                 for number in range(options.shards)]  # fmt: skip
        process, url, asked = started(folder / "shards", options.rate * 1e6, options.latency)
        lines = list(measured(folder, f"{url}/s-{{00..{options.shards - 1:02d}}}.tar", sum(sizes), max(sizes), asked))
        process.kill()
    head = [
        f"{options.shards} shards of {options.images} images, {sum(sizes) / 1e6:,.0f} MB; {options.rate:g} MB/s a "
        f"connection, {options.latency:g} s until it begins; one process, {EPOCHS} epochs to {SIZE} px; beside it: "
        f"{options.beside}.",
        "",
        "| what | seconds | of the processor | images/s | files asked for | fetched, times the data |",
        "|---|---|---|---|---|---|",
    ]
    write_result("elsewhere", "cpu", [*head, *lines, "", *orders()], options.out)


def write(path: Path, number: int, images: int) -> int:
    """A shard of smooth pictures; returns its bytes."""
    draw = np.random.default_rng(number)
    with tarfile.open(path, "w") as tar:
        for place in range(images):
            small = Image.fromarray(draw.integers(0, 256, (12, 12, 3), np.uint8))
            written = io.BytesIO()
            small.resize((192, 192), Image.Resampling.BICUBIC).save(written, "JPEG", quality=92)
            member = tarfile.TarInfo(f"{place:06d}.jpg")
            member.size = written.tell()
            written.seek(0)
            tar.addfile(member, written)
    return path.stat().st_size


def started(folder: Path, rate: float, latency: float) -> tuple[Any, str, Any]:
    """The server's process, its URL, and files asked for and bytes sent."""
    port, asked = multiprocessing.Queue(), multiprocessing.Array("q", 2)
    process = multiprocessing.Process(target=serve, args=(folder, rate, latency, port, asked), daemon=True)
    process.start()
    return process, f"http://127.0.0.1:{port.get()}", asked


def measured(folder: Path, url: str, total: int, largest: int, asked: Any) -> Iterator[str]:
    few = Space(limit=10.1 * largest / 1e9, window=3.01 * largest / 1e9)

    @contextmanager
    def row(name: str) -> Iterator[list[int]]:
        asked[:] = [0, 0]
        images: list[int] = []
        began, at_work = time.perf_counter(), time.process_time()
        yield images
        seconds, at_work = time.perf_counter() - began, time.process_time() - at_work
        rate = f"{images[0] / seconds:,.0f}" if images else ""
        rows.append(f"| {name} | {seconds:.1f} | {at_work:.1f} | {rate} | {asked[0]} | {asked[1] / total:.2f} |")

    rows: list[str] = []
    with row("open on disk, the first time"):
        here = open_source(str(folder / "shards"))
    with row("read on disk") as images:
        images.append(read(here))
    with row("open elsewhere, the first time"):
        open_source(url)
    with row("open again"):
        there = open_source(url)
    with row("read, all in the cache") as images:
        images.append(read(there))
    raw = {name: [microseconds(source) for _ in range(5)] for name, source in (("disk", here), ("cache", there))}
    forget()
    with row("read, nothing in the cache, all in one window") as images:
        images.append(read(there))
    for name, ahead in (("read in windows", True), ("read in windows, nothing fetched before", False)):
        forget()
        with mock.patch.object(windows, "_AT_ONCE", windows._AT_ONCE if ahead else 0), row(name) as images:
            images.append(read(open_source(url, space=few)))
    yield from rows
    yield ""
    each = ", ".join(f"{median(found):.0f} from {name}" for name, found in raw.items())
    yield f"Microseconds of the processor to read an image, without decoding it (median of 5 rounds): {each}."


def microseconds(source: Source) -> float:
    """Of the processor, to read an image."""
    places = np.random.default_rng(0).permutation(len(source)).tolist()
    began = time.process_time()
    for place in places:
        source.read(place)
    return 1e6 * (time.process_time() - began) / len(places)


def forget() -> None:
    """Remove the copies; what is known of the files stays."""
    for copy in (cache.folder() / "elsewhere").glob("*.maekit-copy"):
        copy.unlink()


def read(source: Source) -> int:
    """Images read."""
    steps = EPOCHS * len(source) // BATCH
    batches = train_batches(
        source, DataConfig(workers=0), AugmentConfig(), image_hw=(SIZE, SIZE), channels=3, seed=0, batch_size=BATCH,
        micro_batch=BATCH, start_step=0, total_steps=steps, rank=0, world_size=1, bad=BadImages(source, 0),
    )  # fmt: skip
    return sum(len(batch) for batch in batches)


def orders() -> Iterator[str]:
    """What the order itself takes, of many files."""
    yield from ("| order of | a new epoch, s | a batch of 4,096, ms |", "|---|---|---|")

    class File:
        size = 100_000_000

    for count in (10_000, 1_000_000):
        files = Files([File()] * count, np.arange(count + 1) * 1000, int(50e9))  # type: ignore[list-item]
        stream = windows.WindowStream(count * 1000, 0, True, 1, files)
        began = time.perf_counter()
        stream.samples(0, 1)
        first = time.perf_counter() - began
        began = time.perf_counter()
        for start in range(0, 40960, 4096):
            stream.samples(start, start + 4096)
        each = (time.perf_counter() - began) / 10
        yield f"| {count * 1000:,} images in {count:,} files of 100 MB | {first:.2f} | {1000 * each:.0f} |"


if __name__ == "__main__":
    main()
