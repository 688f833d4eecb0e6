"""A copy of the images of a parquet file, one after another, in the cache folder: read at any place without its group.

A row group is read as a whole for one of its rows; in random order that is all of it again for each image.
"""

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from maekit.data import cache
from maekit.data.shared import shared

_IMAGES, _PLACES = "images", "places"
_BY_ONE = 2**30  # bytes that one process copies as soon as several

log = logging.getLogger("maekit")


class ImageCopies:
    """The images of several files, copied; `read` gives None of what has to be read from its row group."""

    def __init__(self, copies: Sequence["_Copy"], places: Sequence[NDArray[np.int64]]) -> None:
        self._paths = [str(copy.path) for copy in copies]
        self._starts, self._sizes = (shared(np.concatenate([of[:, side] for of in places])) for side in (0, 1))

    def read(self, file: int, index: int) -> bytes | None:
        """An image, by the number of its file and by its own among all."""
        size = int(self._sizes[index])
        if size < 0:
            return None
        try:
            descriptor = os.open(self._paths[file], os.O_RDONLY)
        except OSError:  # the cache was cleared
            return None
        try:
            data = os.pread(descriptor, size, int(self._starts[index]))
        finally:
            os.close(descriptor)
        return data if len(data) == size else None


def copied(text: str, files: Sequence[Path], column: str, limit: float, *, least: int) -> ImageCopies | None:
    """Copies of the images in a column of some files, made where there are none yet.

    limit: bytes that the cache folder may take. None, which is said, where there is no room, or, which is not, where
    all images take `least` bytes at most.
    """
    from maekit.data.workers import map_in_order, worker_count  # brings torch, which nothing else here needs

    copies = [_Copy(file, column) for file in files]
    if sum(copy.bytes for copy in copies) <= least:
        return None
    unmade = [copy for copy in copies if copy.places() is None]
    need, problem = sum(copy.missing() for copy in unmade), ""
    if need and need > cache.room(limit):
        problem = f"{need / 1e9:,.1f} GB are more than there is room for within --data.cache-limit, or on the disk"
    elif unmade:
        log.info(
            "%s: %.1f GB of images are copied to %s, once, to be read in any order", text, need / 1e9, cache.folder()
        )
        workers = worker_count(None) if len(unmade) > 1 and need > _BY_ONE else 0
        problems = map_in_order(_Copy.made, unmade, workers)
        problem = next(filter(None, problems), "")
    places = [found for copy in copies if (found := copy.places()) is not None]
    if problem or len(places) < len(copies):
        log.warning(
            "%s: its images cannot be copied to %s (%s), so that reading them in any order is slow; tar shards need no "
            "copy, and maekit data --clear-cache makes room", text, cache.folder(), problem or "it was cleared",
        )  # fmt: skip
        return None
    return ImageCopies(copies, places)


class _Copy:
    """The images of one file."""

    def __init__(self, file: Path, column: str) -> None:
        status = file.stat()
        of = f"{file.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\0{column}"
        self._file, self._column = file, column
        self._name = hashlib.sha256(of.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        self.path = cache.path(self._name, _IMAGES)
        self._parts = [cache.path(self._name, part, complete=False) for part in (_IMAGES, _PLACES)]
        about = pq.read_metadata(file)
        groups = (about.row_group(number) for number in range(about.num_row_groups))
        chunks = (group.column(number) for group in groups for number in range(group.num_columns))
        self._rows = about.num_rows
        self.bytes = sum(one.total_uncompressed_size for one in chunks if one.path_in_schema.split(".")[0] == column)

    def places(self) -> NDArray[np.int64] | None:
        """[rows, 2], where in the copy a row's image starts and its bytes, -1 where it has to be read from its group;
        None while there is no copy."""
        try:
            found = np.fromfile(cache.path(self._name, _PLACES), np.int64)
        except FileNotFoundError:
            return None
        return found.reshape(-1, 2) if len(found) == 2 * self._rows else None

    def missing(self) -> int:
        """About how many bytes have still to be copied."""
        return max(0, self.bytes - sum(map(cache.size_of, self._parts)))

    def made(self) -> str:
        """Make it; what went wrong, or nothing."""
        try:
            self._make()
        except (OSError, pa.ArrowException) as error:
            return str(error).splitlines()[0]
        return ""

    def _make(self) -> None:
        """All of it, or what an earlier try has left to do."""
        with cache.held(self._name):
            if self.places() is not None:  # another process has made it
                return
            images_part, places_part = self._parts
            with (
                images_part.open("a+b") as images,
                places_part.open("a+b") as places,
                pq.ParquetFile(self._file) as file,
            ):
                rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
                first, at = _resumed(images, places, np.cumsum([0, *rows]))
                for group in range(first, len(rows)):
                    data, found = self._group(file, group, rows[group])
                    for part in data:
                        images.write(part)
                    images.flush()  # before its places, for who goes on
                    found[:, 0] += at
                    places.write(found.tobytes())
                    places.flush()
                    at += sum(map(len, data))
                for written in (images, places):
                    os.fsync(written.fileno())
            if (cache.size_of(images_part), cache.size_of(places_part)) != (at, 16 * self._rows):
                for torn in self._parts:  # on disks of clusters a lock may hold on one machine alone
                    torn.unlink(missing_ok=True)
                raise OSError("another process wrote to it at the same time")
            images_part.replace(self.path)
            places_part.replace(cache.path(self._name, _PLACES))  # last, as they say that it is complete

    def _group(self, file: pq.ParquetFile, group: int, rows: int) -> tuple[list[memoryview], NDArray[np.int64]]:
        """The images of a row group in some pieces, and their places in these, [rows, 2]."""
        nowhere = np.array([[0, -1]] * rows, np.int64).reshape(rows, 2)
        try:
            column = file.read_row_group(group, columns=[self._column], use_threads=False).column(0)
        except (OSError, pa.ArrowException):  # damaged, which is said of each image when it is read
            return [], nowhere
        if len(column) != rows:
            return [], nowhere
        data, places, at = [], [], 0
        for chunk in column.chunks:
            values: Any = pc.struct_field(chunk, "bytes") if pa.types.is_struct(chunk.type) else chunk
            values = values.cast(pa.large_binary())
            _, offsets, content = values.buffers()
            bounds = np.frombuffer(offsets, np.int64)[values.offset : values.offset + len(values) + 1]
            sizes = np.where(values.is_null().to_numpy(zero_copy_only=False), -1, np.diff(bounds))
            places.append(np.stack([at + bounds[:-1] - bounds[0], sizes], axis=1))
            data.append(memoryview(content or b"")[bounds[0] : bounds[-1]])
            at += len(data[-1])
        return data, np.concatenate([nowhere[:0], *places])


def _resumed(images: BinaryIO, places: BinaryIO, ends: NDArray[np.int64]) -> tuple[int, int]:
    """The first group that is not copied as a whole, and where its images start; what is there of it is cut off.

    ends: rows up to each group, from 0 on.
    """
    places.seek(0)
    kept = places.read()
    known = np.frombuffer(kept[: len(kept) // 16 * 16], np.int64).reshape(-1, 2)
    first = int(np.searchsorted(ends, len(known), side="right")) - 1
    known = known[: ends[first]]
    at = int(known[-1, 0] + max(known[-1, 1], 0)) if len(known) else 0
    if images.seek(0, os.SEEK_END) < at:
        first, at, known = 0, 0, known[:0]
    places.truncate(known.nbytes)
    images.truncate(at)
    return first, at
