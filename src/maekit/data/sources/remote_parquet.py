"""Parquet files elsewhere.

What is kept of each for good is small: how many rows it has, and their labels. The copy of a file has its images, one
after another, so that any can be read without the row group around it.
"""

import hashlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from maekit.data.copies import another_name
from maekit.data.sources.elsewhere import Files
from maekit.data.sources.parquet import ParquetSource, label_column
from maekit.data.sources.remote import RemoteFile, system_of
from maekit.data.sources.source import fingerprint
from maekit.errors import DataError, ImageError

_ROWS = 64  # that are in memory at once
_END = np.dtype("<i8")


@dataclass(frozen=True)
class RemoteTable(RemoteFile):
    """A parquet file elsewhere, whose copy holds the images of a column, and behind them where each ends."""

    column: str

    @property
    def key(self) -> str:
        return hashlib.sha256(f"{super().key}\0{self.column}".encode()).hexdigest()[:32]

    @property
    def room(self) -> int:
        return 2 * self.size

    def fetch(self, to: Path) -> None:
        whole = another_name(to, 0)
        try:
            super().fetch(whole)
            with pq.ParquetFile(whole) as file, to.open("wb") as copy:
                ends, end = [], 0
                for batch in file.iter_batches(_ROWS, columns=[self.column], use_threads=False):
                    for cell in batch.column(0).to_pylist():
                        image = cell.get("bytes") if isinstance(cell, dict) else cell
                        end += copy.write(image) if isinstance(image, bytes) else 0
                        ends.append(end)
                copy.write(np.array(ends, _END).tobytes())
        except pa.ArrowException as error:
            raise DataError(_unreadable(self, error)) from None
        finally:
            whole.unlink(missing_ok=True)

    def image(self, row: int, rows: int) -> bytes:
        """One of its images."""
        with self.open() as copy:
            copy.seek((max(row - 1, 0) - rows) * _END.itemsize, os.SEEK_END)
            ends = np.frombuffer(copy.read((1 + (row > 0)) * _END.itemsize), _END)
            start = int(ends[0]) if row else 0
            copy.seek(start)
            return copy.read(int(ends[-1]) - start)


class RemoteParquet(ParquetSource):
    """The rows of parquet files elsewhere, in the order given, which hold images as bytes."""

    def __init__(self, text: str, files: Sequence[RemoteFile], image_column: str | None, window: int) -> None:
        with ThreadPoolExecutor(16) as threads:
            shapes = list(threads.map(_shape, files))
        try:
            super().__init__(text, shapes, image_column)
        except DataError as error:
            words = str(error)
            for file, shape in zip(files, shapes, strict=True):
                words = words.replace(str(shape), str(file)).replace(shape.name, file.name)
            raise DataError(words) from None
        self._tables = [RemoteTable(**vars(file), column=self._image) for file in files]
        starts = np.cumsum([0, *(pq.read_metadata(shape).num_rows for shape in shapes)])
        self.files = Files(self._tables, starts, window)

    def path(self, index: int) -> str:
        file, row, _ = self._place(index)
        return f"{self._tables[file]}:{row}"

    def read(self, index: int) -> bytes:
        file, row, rows = self._place(index)
        if image := self._tables[file].image(row, rows):
            return image
        raise ImageError("the row holds no image")

    def fingerprint(self) -> str:
        names, sizes = zip(*((table.name, table.size) for table in self._tables), strict=True)
        return fingerprint(self.classes, names, self._labels, sizes)

    def copy_images(self, limit: float) -> None:
        """Its copies are made as they are needed."""

    def _place(self, index: int) -> tuple[int, int, int]:
        """The file, the row in it, and how many it has."""
        starts = self.files.starts
        file = int(np.searchsorted(starts, index, side="right")) - 1
        return file, index - int(starts[file]), int(starts[file + 1] - starts[file])


def _shape(file: RemoteFile) -> Path:
    """A parquet file of as many rows, with the labels and nothing else in it."""
    shape = file.with_name(f"{file.name}.maekit-shape.parquet")
    if shape.exists():
        return shape
    try:
        system, path = system_of(file.url)
        with system.open(path, "rb") as opened:
            _write_shape(opened, shape)
    except Exception:  # the service gives no part of a file, or does not at this moment; then the whole of it is tried
        try:
            with file.open() as opened:
                _write_shape(opened, shape)
        except pa.ArrowException as error:
            raise DataError(_unreadable(file, error)) from None
    return shape


def _write_shape(opened: Any, to: Path) -> None:
    partial = to.with_name(f"{to.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    with pq.ParquetFile(opened) as file:
        schema, label = file.schema_arrow, label_column(file.schema_arrow)
        labels = file.read(columns=[label], use_threads=False).column(0) if label is not None else None
        columns = [labels if field.name == label else pa.nulls(file.metadata.num_rows, field.type) for field in schema]
        nullable = pa.schema([field.with_nullable(True) for field in schema], schema.metadata)
        pq.write_table(pa.table(columns, schema=nullable), partial)
    partial.replace(to)


def _unreadable(file: RemoteFile, error: Exception) -> str:
    return f"{file}: not a readable parquet file ({str(error).splitlines()[0]})"
