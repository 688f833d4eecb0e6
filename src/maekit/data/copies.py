"""Copies of files that lie elsewhere, in a part of the cache folder that is bounded and shared by processes.

A copy is there whole or not at all: it is written under another name, and renamed once it is known to be right. One
process fetches a file while others that want it wait. Where there is no room, the copies that were used longest ago go;
who reads one at that moment can read on.
"""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from maekit.data import cache

_NOTED = 60.0  # seconds; a use sooner after the last one is not noted
_LOCKS = 3  # hexadecimal digits of a name that choose its lock
_WHOLE, _PARTIAL = ".maekit-copy", ".maekit-partial"


def folder() -> Path:
    """Where they are."""
    return cache.folder() / "elsewhere"


def room(limit: int) -> int:
    """Bytes that copies can take, where the cache folder may take `limit`."""
    return cache.room(limit) + sum(map(cache.size_of, folder().glob(f"*{_WHOLE}")))


@dataclass(frozen=True)
class Copies:
    """Copies by names, which are hexadecimal digits and say of which content a copy is."""

    limit: int
    """Bytes that the cache folder may take, with what is being fetched and without what is known of files."""
    _noted: dict[str, float] = field(default_factory=dict, compare=False, repr=False)

    def held(self, name: str, size: int, fetch: Callable[[Path], None], *, wait: bool = True) -> Path:
        """A copy's path. Without `wait` it leads nowhere where another process is fetching it.

        fetch: writes it to a path. size: bytes that this takes.
        """
        path = folder() / f"{name}{_WHOLE}"
        if not path.exists():
            with _locked(name[:_LOCKS], wait=wait) as mine:
                if mine and not path.exists():
                    self._fetched(path, size, fetch)
        now = time.monotonic()
        if now - self._noted.get(name, -_NOTED) >= _NOTED:
            self._noted[name] = now
            with suppress(FileNotFoundError):
                os.utime(path)
        return path

    def _fetched(self, path: Path, size: int, fetch: Callable[[Path], None]) -> None:
        partial = another_name(path, size)
        try:
            with _locked("room"):
                self._make_room(size)
                partial.touch()
            fetch(partial)
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        with _locked("room"):
            self._make_room(0, keep=path)

    def _make_room(self, size: int, keep: Path | None = None) -> None:
        missing = size - cache.room(self.limit)
        for partial in folder().glob(f"*{_PARTIAL}"):
            with _locked(partial.name[:_LOCKS], wait=False) as nobody_writes_it:
                written = cache.size_of(partial)
                if nobody_writes_it:  # who did died
                    partial.unlink(missing_ok=True)
                    missing -= written
                else:
                    missing += max(0, int(partial.name.split(".")[1]) - written)
        copies = ((path, path.stat()) for path in folder().glob(f"*{_WHOLE}") if path != keep)
        for path, status in sorted(copies, key=lambda copy: copy[1].st_mtime_ns):
            if missing <= 0:
                break
            path.unlink(missing_ok=True)
            missing -= status.st_size


def another_name(path: Path, size: int) -> Path:
    """Where this thread writes what will be a copy and takes `size` bytes until it is one."""
    return path.with_name(f"{path.name.partition('.')[0]}.{size}.{os.getpid()}.{threading.get_ident()}{_PARTIAL}")


@contextmanager
def _locked(name: str, *, wait: bool = True) -> Iterator[bool]:
    """Whether the lock was got, which only without `wait` it may not be."""
    path = folder() / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a process that was forked meanwhile has the file open too
