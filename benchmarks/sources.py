"""Sources of many images: what it takes to open them, to know them again, to read them in any order, to share them.

    python benchmarks/sources.py --images 1000000 --kinds list folder tar parquet

Images are 300 random bytes, which nobody decodes: a source hands out bytes. Each opening is a process of its own, with
its peak; reading goes by the order of an epoch, in one process, in turn for all kinds, several rounds. What is made
under --folder stays there for the next time. Files of a folder are a million at most; a list names more than are there.
"""

import argparse
import json
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

BYTES, CLASSES, FILES = 300, 1000, 1_000_000
SHARD, GROUP = 100_000, 10_000  # images of a tar or parquet file, rows of a group
KINDS = ("list", "folder", "tar", "parquet")
READS, ROUNDS = 4_000, 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--folder", default="runs/sources")
    parser.add_argument("--beside", default="nothing that is known", help="what else ran, in words")
    parser.add_argument("--out", default="")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        task, *sources = options.measure
        print(json.dumps({"open": _open, "read": _read, "share": _share}[task](*sources)))
        return
    root = Path(options.folder).absolute() / str(options.images)
    os.environ["MAEKIT_CACHE"] = str(root / "cache")
    sources = {kind: _made(kind, root, options.images) for kind in options.kinds}
    lines = _lines(sources, options.images)
    from results import write_result  # brings torch

    write_result("sources", "cpu", [f"Beside it ran {options.beside}.", "", *lines], options.out)


def _made(kind: str, root: Path, images: int) -> Path:
    """Where the source of a kind is, made if it is not there."""
    path = root / ("list.csv" if kind == "list" else kind)
    done = root / f"{kind}.done"
    if not done.exists():
        print(f"making {path}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        {"list": _make_list, "folder": _make_folder, "tar": _make_tars, "parquet": _make_parquet}[kind](path, images)
        done.touch()
    return path


def _name(number: int) -> str:
    return f"folder/class_{number % CLASSES:04d}/{number:08d}.png"


def _make_list(path: Path, images: int) -> None:
    (path.parent / _name(0)).parent.mkdir(parents=True, exist_ok=True)
    (path.parent / _name(0)).touch()  # the first has to be there
    with path.open("w") as file:
        for number in range(images):
            file.write(f"{_name(number)},{number % CLASSES}\n")


def _make_folder(path: Path, images: int) -> None:
    for number in range(CLASSES):
        (path / f"class_{number:04d}").mkdir(parents=True, exist_ok=True)
    for start, data in _chunks(min(images, FILES)):
        for number, image in enumerate(data, start):
            (path.parent / _name(number)).write_bytes(image)


def _make_tars(path: Path, images: int) -> None:
    """Members of 512 bytes of header and as many of data, written by the thousand."""
    path.mkdir(exist_ok=True)
    header = bytearray(b"%08d.png" % 0 + bytes(88) + b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % BYTES + b"0" * 11)
    header += b"\0" + b" " * 8 + b"0" + bytes(100) + b"ustar\0" + b"00" + bytes(247)
    for start, data in _chunks(images):
        block = np.zeros((len(data), 1024), np.uint8)
        block[:, :512] = np.frombuffer(header, np.uint8)
        numbers = np.arange(start, start + len(data))
        block[:, :8] = _digits(numbers, 10, 8)
        block[:, 148:154] = _digits(block[:, :512].sum(axis=1, dtype=np.int64), 8, 6)
        block[:, 154] = 0
        block[:, 512 : 512 + BYTES] = np.frombuffer(b"".join(data), np.uint8).reshape(-1, BYTES)
        with (path / f"{start // SHARD:04d}.tar").open("wb" if start % SHARD == 0 else "ab") as file:
            file.write(block.tobytes())
            if (start + len(data)) % SHARD == 0 or start + len(data) == images:
                file.write(bytes(1024))


def _digits(numbers: np.ndarray, base: int, count: int) -> np.ndarray:
    places = base ** np.arange(count)[::-1]
    return (numbers[:, None] // places % base + ord("0")).astype(np.uint8)


def _make_parquet(path: Path, images: int) -> None:
    path.mkdir(exist_ok=True)
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": [str(n) for n in range(CLASSES)]},
    }
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    schema = pa.schema({"image": kind, "label": pa.int64()}).with_metadata(about)
    writer = None
    for start, data in _chunks(images):
        if start % SHARD == 0:
            if writer is not None:
                writer.close()
            writer = pq.ParquetWriter(path / f"train-{start // SHARD:05d}.parquet", schema)
        numbers = range(start, start + len(data))
        rows = [{"bytes": image, "path": None} for image in data]
        table = pa.table({"image": pa.array(rows, kind), "label": [n % CLASSES for n in numbers]}, schema=schema)
        writer.write_table(table, row_group_size=GROUP)
    writer.close()


def _chunks(images: int) -> Iterator[tuple[int, list[bytes]]]:
    """Images by the ten thousand, with the number of the first."""
    generator = np.random.default_rng(0)
    for start in range(0, images, GROUP):
        data = generator.bytes(BYTES * min(GROUP, images - start))
        yield start, [data[at : at + BYTES] for at in range(0, len(data), BYTES)]


def _lines(sources: dict[str, Path], images: int) -> list[str]:
    lines = [
        f"{images:,} images of {BYTES} bytes; of the folder {min(images, FILES):,}. Tar shards and parquet files of",
        f"{SHARD:,}, parquet in row groups of {GROUP:,}. Peaks are of the whole process, which has torch only where",
        "tar shards are indexed: 0.5 GB of it. Of all sizes: `--data.fingerprint full`.",
        "",
        "| source | opened first, s | opened again, s (of one core) | peak, GB | fingerprint, s | of all sizes, s | "
        "ready for any order first, s | worker's own memory, forkserver, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, path in sources.items():
        first, again, shared = (_measured(task, path) for task in ("open", "open", "share"))
        cells = [
            kind, f"{first['open']:.1f}", f"{again['open']:.2f} ({again['core']:.2f})",
            f"{max(first['peak'], again['peak']):.2f}", f"{again['fingerprint']:.2f}", f"{again['full']:.1f}",
            f"{first['ready']:.1f}", f"{shared['own'] / 1e6:.1f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    nothing = _measured("share", "digits:train")
    lines += ["", f"A worker's own memory with 1,437 digits: {nothing['own'] / 1e6:.1f} MB.", ""]
    lines += ["All files were read once before, so that what fits is in the page cache.", ""]
    lines += [f"| read in an epoch's order, {READS:,} images a round | images/s, median (quartiles) |", "|---|---|"]
    for kind, seconds in _measured("read", *sources.values())["seconds"].items():
        low, middle, high = (READS / value for value in quantiles(seconds, n=4)[::-1])
        lines.append(f"| {kind} | {middle:,.0f} ({low:,.0f} to {high:,.0f}) |")
    return [*lines, "", *_orders()]


def _measured(task: str, *sources: Any) -> dict[str, Any]:
    words = [sys.executable, __file__, "--measure", task, *map(str, sources)]
    return json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])


def _open(text: str) -> dict[str, float]:
    from maekit.data.sources import find_source, in_any_order
    from maekit.data.sources.source import full_fingerprint

    found: dict[str, float] = {}
    began, busy = time.perf_counter(), time.process_time()
    source = find_source(text)
    found["open"], found["core"] = time.perf_counter() - began, time.process_time() - busy
    began = time.perf_counter()
    source.fingerprint()
    found["fingerprint"] = time.perf_counter() - began
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    began = time.perf_counter()
    in_any_order(source, 1e12)
    found["ready"] = time.perf_counter() - began
    began = time.perf_counter()
    full_fingerprint(source)
    found["full"] = time.perf_counter() - began
    return found


def _read(*texts: str) -> dict[str, dict[str, list[float]]]:
    from maekit.data.sampler import order
    from maekit.data.sources import find_source, in_any_order

    sources = {Path(text).stem: find_source(text) for text in texts}
    if "list" in sources and not Path(sources["list"].path(1)).exists():  # made without its files
        del sources["list"]
    if parquet := sources.get("parquet"):
        sources["parquet, a copy of its images"] = sources.pop("parquet")
        in_any_order(parquet, 1e12)
        sources["parquet, by row groups"] = find_source(next(text for text in texts if text.endswith("parquet")))
    for text in (*texts, os.environ["MAEKIT_CACHE"]):  # through the page cache, as far as it holds them
        for file in Path(text).rglob("*"):
            if file.is_file():
                with file.open("rb") as opened:
                    while opened.read(2**24):
                        pass
    seconds: dict[str, list[float]] = {kind: [] for kind in sources}
    for turn in range(ROUNDS):
        for kind, source in sources.items():
            there = min(len(source), FILES) if kind in ("list", "folder") else len(source)
            count = READS // 40 if kind.endswith("groups") else READS
            places = order(np.arange(count), there, 0, turn).tolist()
            began = time.perf_counter()
            for index in places:
                source.read(index)
            seconds[kind].append((time.perf_counter() - began) * READS / count)
    return {"seconds": seconds}


def _share(text: str) -> dict[str, int]:
    from maekit.data.sources import find_source, in_any_order
    from maekit.data.workers import map_in_order

    multiprocessing.set_start_method("forkserver")
    source = find_source(text)
    in_any_order(source, 1e12)
    return {"own": max(map_in_order(partial(_own_memory, source), [0, len(source) - 1], 1))}


def _own_memory(source: Any, index: int) -> int:
    source.path(index), source.label(index)
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(kilobytes) for kilobytes in re.findall(r"Private_\w+: *(\d+)", rollup)) * 1024


def _orders() -> Iterator[str]:
    """What the places of a batch in an epoch's order take, and an array of all in the first place."""
    from maekit.data.sampler import _network

    yield "| order of | 256 places, ms | a place of 4,096, µs | an array of all by NumPy, s |"
    yield "|---|---|---|---|"
    for images in (10**7, 10**8):
        took = []
        for count in (256, 4096):
            seconds = []
            for turn in range(50):
                began = time.perf_counter()
                _network(np.arange(count), images, 0, turn)
                seconds.append(time.perf_counter() - began)
            took.append(median(seconds))
        began = time.perf_counter()
        np.random.default_rng(0).permutation(images)
        array = time.perf_counter() - began
        yield f"| {images:,} | {took[0] * 1e3:.2f} | {took[1] / 4096 * 1e6:.2f} | {array:.1f} |"


if __name__ == "__main__":
    main()
