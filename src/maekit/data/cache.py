"""The cache folder: copies of images that are made once so that they can be read in any order. None is ever needed.

Each thing kept is some files of one name, which are moved there when they are complete.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import disk_usage

_OURS, _LOCK = "*.maekit-*", ".maekit-lock"
_FREE = 5e9  # a twentieth of a large disk would be more than anybody misses


def folder() -> Path:
    """Where it is: MAEKIT_CACHE, else maekit in XDG_CACHE_HOME, else in ~/.cache."""
    named = os.environ.get("MAEKIT_CACHE")
    if named:
        return Path(named).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maekit"


def size() -> int:
    """Bytes in it."""
    return sum(size_of(file) for pattern in (_OURS, f"*/{_OURS}") for file in folder().glob(pattern))


def room(limit: float) -> int:
    """Bytes that can be added: it may take `limit` in all, and a twentieth of the disk, 5 GB at most, stays free.

    Negative where it holds more, or less is free.
    """
    above = next(path for path in (folder(), *folder().parents) if path.exists())
    disk = disk_usage(above)
    return int(min(limit - size(), disk.free - min(disk.total / 20, _FREE)))


def clear() -> int:
    """Remove all that maekit keeps there, also what a run uses, which then reads the images where they came from.

    Returns the bytes freed.
    """
    freed = 0
    for file in folder().rglob(_OURS):
        if not file.name.endswith(_LOCK):  # others may wait for it
            freed += size_of(file)
            file.unlink(missing_ok=True)
    return freed


@contextmanager
def held(name: str) -> Iterator[None]:
    """Wait for other processes that make the thing of that name, and keep them waiting."""
    folder().mkdir(parents=True, exist_ok=True)
    with (folder() / f"{name}{_LOCK}").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def path(name: str, part: str, *, complete: bool = True) -> Path:
    """The file that holds a part of a thing, `images` say, when it is complete or still being made."""
    return folder() / f"{name}.maekit-{part}{'' if complete else '-part'}"


def size_of(file: Path) -> int:
    """Bytes, 0 of a file that is not there."""
    with suppress(FileNotFoundError):
        return file.stat().st_size
    return 0
