"""Tar shards in WebDataset's layout, read at any place through an index of byte offsets."""

import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maekit.data.shared import shared
from maekit.data.sources.elsewhere import Files
from maekit.data.sources.labels import LabelledImages, found_labels
from maekit.data.sources.passed_over import PassedOver
from maekit.data.sources.remote import RemoteFile, fetched_before
from maekit.data.sources.source import Names, fingerprint
from maekit.data.sources.tar_samples import samples_of
from maekit.errors import DataError, ImageError

INDEX_SUFFIX = ".maekit-index.npz"
_VERSION = 4
_BY_ONE = 2**30  # bytes of tar files that one process indexes as soon as several

Shard = Path | RemoteFile

_log = logging.getLogger("maekit")


class ShardsSource(LabelledImages):
    """The samples of uncompressed tar files that hold an image, in the order given.

    Each shard's index lies beside it and is made anew when the shard's size or time changes; where the folder cannot be
    written it is made each time. Labels are numbers, of classes that a member `.classes.json` of the shards may name
    (as `maekit pack` writes it), or strings that become classes in sorted order.
    """

    def __init__(self, text: str, shards: Sequence[Path] | Sequence[RemoteFile], window: int = 0) -> None:
        """window: bytes of files elsewhere among which images are shuffled."""
        self.text, self._shards = text, list(shards)
        indices = _indices(shards)
        self.passed_over = sum((index.passed_over for index in indices), PassedOver())
        counts = [len(index.offsets) for index in indices]
        elsewhere = [shard for shard in shards if isinstance(shard, RemoteFile)]
        self.files = Files(elsewhere, np.cumsum([0, *counts]), window) if elsewhere else None
        self._shard = shared(np.repeat(np.arange(len(shards), dtype=np.int32), counts))
        self._names = Names.joined([index.names for index in indices])
        self._offsets = shared(np.concatenate([index.offsets for index in indices]))
        self._sizes = shared(np.concatenate([index.sizes for index in indices]))
        starts = np.cumsum([0, *(len(index.labels) for index in indices)])
        codes = [index.codes + start for index, start in zip(indices, starts, strict=False)]
        values = [label for index in indices for label in index.labels]
        self._labels, self.classes = found_labels(text, values, _names(shards, indices), np.concatenate(codes))

    def path(self, index: int) -> str:
        return f"{self._shards[self._shard[index]]}:{self._names[index]}"

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

    def size(self, index: int) -> int:
        return int(self._sizes[index])

    def fingerprint(self) -> str:
        return fingerprint(self.classes, self._names, self._labels, self._sizes)


@dataclass
class _Index:
    """The images of a shard: name, offset and size in bytes of each. Image i's label is `labels[codes[i]]`."""

    names: Names
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    codes: NDArray[np.int64]
    labels: list[int | str | None]
    classes: list[str] | None
    passed_over: PassedOver


def _names(shards: Sequence[Shard], indices: Sequence[_Index]) -> list[str] | None:
    """Of classes, where shards name them."""
    found = [(shard, index.classes) for shard, index in zip(shards, indices, strict=True) if index.classes is not None]
    for shard, names in found:
        if names != found[0][1]:
            raise DataError(f"{shard}: names other classes than {found[0][0].name}; open one of them")
    return found[0][1] if found else None


def _indices(shards: Sequence[Shard]) -> list[_Index]:
    """Each shard's index, made by several processes where there is much to be read for it."""
    found: dict[Shard, _Index | None] = {shard: _kept(shard) for shard in shards}
    without = [shard for shard, index in found.items() if index is None]
    if without:
        found |= zip(without, _made_all(without), strict=True)
    return [index for shard in shards if (index := found[shard]) is not None]


def _made_all(shards: Sequence[Shard]) -> Iterator[_Index]:
    from maekit.data.workers import map_in_order, worker_count  # brings torch, which nothing else here needs

    is_much = sum(shard.stat().st_size for shard in shards) > _BY_ONE
    if is_much:
        _log.info("%s: %d tar files are indexed, once", shards[0].parent, len(shards))
    for made in map_in_order(_made, fetched_before(shards), worker_count(None) if is_much and len(shards) > 1 else 0):
        if isinstance(made, DataError):
            raise made
        yield made


def _state(shard: Shard) -> dict[str, int]:
    """What an index has to be of."""
    try:
        status = shard.stat()
    except OSError as error:
        raise DataError(f"{shard}: cannot be read ({error.strerror})") from None
    return {"version": _VERSION, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _beside(shard: Shard) -> Path:
    return shard.with_name(shard.name + INDEX_SUFFIX)


def _kept(shard: Shard) -> _Index | None:
    """The index beside a shard, where it is of this very file."""
    state = _state(shard)
    try:
        with np.load(_beside(shard), allow_pickle=False) as kept:
            about = json.loads(str(kept["about"]))
            if any(about[name] != value for name, value in state.items()):
                return None
            index = _Index(Names(kept["names"], kept["ends"]), kept["offsets"], kept["sizes"], kept["codes"],
                           about["labels"], about["classes"], _passed_over(about["passed_over"]))  # fmt: skip
    except Exception:  # none yet, or a damaged one: whatever NumPy makes of that
        return None
    return index if _can_be(index, state["size"]) else None


def _can_be(index: _Index, end: int) -> bool:
    """Whether it fits a shard of so many bytes."""
    names, offsets, sizes, codes = index.names, index.offsets, index.sizes, index.codes
    arrays = names.ends, offsets, sizes, codes
    if names.data.dtype != np.uint8 or any(array.dtype != np.int64 or array.shape != offsets.shape for array in arrays):
        return False
    if not all(isinstance(label, int | str | None) for label in index.labels):
        return False
    if index.classes is not None and not all(isinstance(name, str) for name in index.classes):
        return False
    ends = np.append(0, names.ends)
    within = (offsets >= 0) & (sizes >= 0) & (offsets <= end) & (sizes <= end - offsets)
    labelled = (codes >= 0) & (codes < len(index.labels))
    return bool(ends[-1] == len(names.data) and (np.diff(ends) >= 0).all() and (within & labelled).all())


def _passed_over(kept: dict[str, dict[str, int]]) -> PassedOver:
    """What an index says was passed over. ValueError where it can't be that."""
    images, beside = (Counter(kept[name]) for name in ("images", "beside"))
    if not all(isinstance(what, str) and type(count) is int for what, count in (images + beside).items()):
        raise ValueError
    return PassedOver(images, beside)


def _made(shard: Shard) -> _Index | DataError:
    """A shard's index, made by reading it, and left beside it."""
    try:
        state = _state(shard)
        samples, classes, passed_over = samples_of(shard)
    except DataError as error:
        return error
    numbers: dict[int | str | None, int] = {}
    codes = np.array([numbers.setdefault(sample.label, len(numbers)) for sample in samples], np.int64)
    offsets, sizes = (np.array([sample[place] for sample in samples], np.int64) for place in (1, 2))
    names = Names.of(sample.name for sample in samples)
    index = _Index(names, offsets, sizes, codes, list(numbers), classes, passed_over)
    _keep(_beside(shard), index, state)
    return index


def _keep(beside: Path, index: _Index, state: dict[str, int]) -> None:
    about = {**state, "labels": index.labels, "classes": index.classes, "passed_over": index.passed_over.as_dict()}
    partial = beside.with_name(f"{beside.name}.{os.getpid()}.tmp")
    try:
        with partial.open("wb") as file:
            np.savez(file, about=np.array(json.dumps(about)), names=index.names.data, ends=index.names.ends,
                     offsets=index.offsets, sizes=index.sizes, codes=index.codes)  # fmt: skip
        partial.replace(beside)
        beside.with_suffix(".json").unlink(missing_ok=True)  # as earlier versions wrote it
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        _log.info("%s: cannot be kept (%s), so the shard is indexed each time", beside, error.strerror)
