"""A run's history: metrics.jsonl, which is the truth, and TensorBoard's copy of it."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maekit import storage, strict_json
from maekit.errors import StorageError

Record = dict[str, Any]

_BLOCK = 1 << 16


class History:
    """Appends records to metrics.jsonl, one JSON object a line, and to tensorboard/."""

    def __init__(self, folder: Path, *, tensorboard: bool, after_step: int = 0) -> None:
        """after_step: the step a run goes on from; what the files say of later steps is cut away first."""
        self._path = folder / "metrics.jsonl"
        try:
            cut_back(self._path, after_step)
            self._file = self._path.open("ab")
            self._board = _Board(folder / "tensorboard", self._path) if tensorboard else None
        except OSError as error:
            raise StorageError(f"{error.filename or self._path}: cannot be written ({error.strerror})") from None

    def write(self, record: Record) -> None:
        """Append one record and flush it."""
        with storage.explained(self._path):
            self._file.write((strict_json.dumps(record) + "\n").encode())
            self._file.flush()
        if self._board is not None:
            with contextlib.suppress(OSError):  # a copy, made anew when the run goes on
                self._board.show(record)

    def close(self) -> None:
        if self._board is not None:
            with contextlib.suppress(OSError):
                self._board.close()
        with storage.explained(self._path):
            self._file.close()


def read(path: Path) -> list[Record]:
    """All records of a metrics.jsonl, without a torn last line; none where there is no file."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        return [record for line in file if (record := _record(line)) is not None]


def last(path: Path) -> Record:
    """The last record of a metrics.jsonl; empty where there is none."""
    if path.is_file():
        with path.open("rb") as file:
            for _, line in _lines_backwards(file, file.seek(0, os.SEEK_END)):
                record = _record(line)
                if record is not None:
                    return record
    return {}


def cut_back(path: Path, step: int) -> None:
    """Remove the records after `step`, and a torn last line. Reads from the end, so its cost is what it removes."""
    if not path.is_file():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        for start, line in _lines_backwards(file, end):
            record = _record(line)
            if record is not None and record.get("step", 0) <= step:
                break
            end = start
        file.truncate(end)


def _lines_backwards(file: Any, end: int) -> Iterator[tuple[int, bytes]]:
    """(offset, line with its newline) from the last line to the first."""
    tail, position = b"", end
    while position > 0:
        size = min(_BLOCK, position)
        position -= size
        file.seek(position)
        tail = file.read(size) + tail
        lines = tail.splitlines(keepends=True)
        offset = position + len(tail)
        for line in reversed(lines[1:] if position else lines):
            offset -= len(line)
            yield offset, line
        tail = lines[0] if position else b""


def _record(line: bytes) -> Record | None:
    """A line's record; None for a torn or foreign one."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


class _Board:
    """TensorBoard's file, written anew from the history so that both always tell the same.

    An event a record, at once: torch's SummaryWriter would write from a thread of its own, whose errors nobody sees to.
    """

    def __init__(self, folder: Path, history: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # a second of imports that only training costs
        from tensorboard.summary.writer.record_writer import RecordWriter

        storage.remove(folder)
        folder.mkdir()
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("wb", buffering=0)  # nothing is left to be written when it is closed
        self._records, self._event = RecordWriter(self._file), Event
        self._records.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        for record in read(history):
            self.show(record)

    def show(self, record: Record) -> None:
        event = self._event(wall_time=time.time(), step=record["step"])
        for name, value in record.items():
            if name != "step" and isinstance(value, int | float):
                event.summary.value.add(tag=name, simple_value=value)
        self._records.write(event.SerializeToString())

    def close(self) -> None:
        self._file.close()
