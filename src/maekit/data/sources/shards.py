"""Tar shards in WebDataset's layout, read at any place through an index of byte offsets.

A sample is a run of files whose names agree up to the first dot: `000017.jpg` and `000017.cls` or `000017.json`.
"""

import json
import logging
import os
import re
import tarfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from maekit.data.sources.labels import as_label, integer_labels, string_labels
from maekit.data.sources.source import Names, fingerprint, is_image_name
from maekit.errors import DataError, ImageError

INDEX_SUFFIX = ".maekit-index.json"
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_LABEL_KEYS = ("label", "cls", "class")  # of a sample's .json

_log = logging.getLogger("maekit")
_Sample = tuple[str, int, int, int | str | None]  # the image's name, offset and size in bytes, its label


class ShardsSource:
    """The samples of uncompressed tar files that hold an image, in the order given.

    Each shard's index lies beside it and is made anew when the shard's size or time changes; where the folder cannot be
    written it is made each time. Labels are numbers, or strings that become classes in sorted order.
    """

    def __init__(self, text: str, shards: Sequence[Path]) -> None:
        self.text = text
        self._shards = list(shards)
        indexed = [(number, *sample) for number, shard in enumerate(shards) for sample in _index(shard)]
        self._shard = np.array([sample[0] for sample in indexed], dtype=np.int32)
        self._names = Names(sample[1] for sample in indexed)
        self._offsets = np.array([sample[2] for sample in indexed], dtype=np.int64)
        self._sizes = np.array([sample[3] for sample in indexed], dtype=np.int64)
        labels = [sample[4] for sample in indexed]
        if any(isinstance(label, str) for label in labels):
            self._labels, self.classes = string_labels([None if label is None else str(label) for label in labels])
        else:
            numbers = [label if isinstance(label, int) else -1 for label in labels]
            self._labels, self.classes = integer_labels(text, numbers)

    def __len__(self) -> int:
        return len(self._names)

    def path(self, index: int) -> str:
        return f"{self._shards[self._shard[index]]}:{self._names[index]}"

    def label(self, index: int) -> int | None:
        return as_label(self._labels[index])

    def read(self, index: int) -> bytes:
        size = int(self._sizes[index])
        try:
            with self._shards[self._shard[index]].open("rb") as file:
                file.seek(int(self._offsets[index]))
                data: bytes = file.read(size)
        except OSError as error:
            raise ImageError(f"its shard cannot be read ({error.strerror})") from None
        if len(data) < size:
            raise ImageError("its shard has become shorter")
        return data

    def fingerprint(self) -> str:
        return fingerprint(self.classes, self._names, self._labels, self._sizes.tolist())


def _index(shard: Path) -> list[_Sample]:
    """The samples of a shard, from the index beside it where that is of this very file."""
    beside = shard.with_name(shard.name + INDEX_SUFFIX)
    try:
        status = shard.stat()
    except OSError as error:
        raise DataError(f"{shard}: cannot be read ({error.strerror})") from None
    state = {"version": 1, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    try:
        kept = json.loads(beside.read_text(encoding="utf-8"))
        if {name: kept[name] for name in state} == state:
            return [_checked(*sample, end=status.st_size) for sample in kept["samples"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # none yet, or a damaged one
    samples = _scan(shard)
    _keep(beside, {**state, "samples": samples})
    return samples


def _checked(name: str, offset: int, size: int, label: int | str | None, *, end: int) -> _Sample:
    """A sample of an index, if it can be one. ValueError else."""
    numbers = type(offset) is int and type(size) is int and 0 <= offset <= offset + size <= end
    if not numbers or not isinstance(name, str) or not isinstance(label, int | str | None):
        raise ValueError
    return name, offset, size, label


def _keep(beside: Path, index: dict[str, Any]) -> None:
    partial = beside.with_name(f"{beside.name}.{os.getpid()}.tmp")
    try:
        partial.write_text(json.dumps(index), encoding="utf-8")
        partial.replace(beside)
    except OSError as error:
        _log.info("%s: cannot be kept (%s), so the shard is indexed each time", beside, error.strerror)


def _scan(shard: Path) -> list[_Sample]:
    try:
        with tarfile.open(shard, "r:") as tar:
            files = (member for member in tar if member.isreg() and not PurePosixPath(member.name).name.startswith("."))
            samples = [_sample(tar, list(members)) for _, members in groupby(files, _key)]
            _check_end(tar)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{shard}: not an uncompressed and complete tar file ({error})") from None
    return [sample for sample in samples if sample is not None]


def _check_end(tar: tarfile.TarFile) -> None:
    """Raises where the members end otherwise than in zeros or at the file's end: tarfile takes that for the end too."""
    if tar.fileobj is not None:
        tar.fileobj.seek(tar.offset)
        if any(tar.fileobj.read(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError(f"damaged or cut at byte {tar.offset:,}")


def _key(member: tarfile.TarInfo) -> str:
    path = PurePosixPath(member.name)
    return str(path.parent / path.name.partition(".")[0])


def _sample(tar: tarfile.TarFile, members: list[tarfile.TarInfo]) -> _Sample | None:
    """One sample: its first image, and its label where it has one; None without an image."""
    images = [member for member in members if is_image_name(PurePosixPath(member.name).name)]
    if not images:
        return None
    label: int | str | None = None
    for member in members:
        ending = member.name.rpartition(".")[2].lower()
        file = tar.extractfile(member) if label is None and ending in ("cls", "json") else None
        if file is not None:
            label = _label(file.read(), ending)
    return images[0].name, images[0].offset_data, images[0].size, label


def _label(content: bytes, ending: str) -> int | str | None:
    """The label in a .cls file, or in a .json file that has one."""
    text = content.decode("utf-8", "replace").strip()
    value: Any = text or None
    if ending == "json":
        try:
            values = json.loads(text)
        except ValueError:
            return None
        known = [values[key] for key in _LABEL_KEYS if key in values] if isinstance(values, dict) else []
        value = known[0] if known else None
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None
