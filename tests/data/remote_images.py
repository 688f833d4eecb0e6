"""Images that a server has: in tar shards or parquet, four a file, each of one shade."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from file_server import FileServer
from PIL import Image
from source_forms import write_parquet, write_shard

from maekit.data.sources import Source

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


def put(server: FileServer, suffix: str, to: Path, files: int = 1) -> str:
    for number in range(files):
        server.put(f"part-{number}.{suffix}", MAKE[suffix](number, to))
    return f"{server.url}/part-{{0..{files - 1}}}.{suffix}"


def all_right(source: Source) -> bool:
    return [source.read(index) for index in range(len(source))] == [picture(index) for index in range(len(source))]
