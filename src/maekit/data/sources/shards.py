"""Tar shards in WebDataset's layout, read at any place through an index of byte offsets.

A sample is a run of files with the same key: their names without the last ending, so that `at 10.15.01.png` keeps its
dots. `000017.seg.png` and `000017.caption.txt` belong to `000017` where that is a key too: `000017.jpg`, `000017.cls`.
"""

import json
import logging
import os
import re
import tarfile
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from maekit.data.sources.labels import LabelledImages, found_labels
from maekit.data.sources.passed_over import PassedOver, is_beside, suffix_of
from maekit.data.sources.source import Names, fingerprint, is_image_name
from maekit.errors import DataError, ImageError

INDEX_SUFFIX = ".maekit-index.json"
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_LABEL_KEYS = ("label", "cls", "class")  # of a sample's .json

_log = logging.getLogger("maekit")
_Sample = tuple[str, int, int, int | str | None]  # the image's name, offset and size in bytes, its label
_Index = tuple[list[_Sample], PassedOver]
_LABELS = (".cls", ".json")
_SECOND, _REPLACED, _ALONE = "second image in a sample", "image replaced by a later one of its name", "without an image"


class ShardsSource(LabelledImages):
    """The samples of uncompressed tar files that hold an image, in the order given.

    Each shard's index lies beside it and is made anew when the shard's size or time changes; where the folder cannot be
    written it is made each time. Labels are numbers, or strings that become classes in sorted order.
    """

    def __init__(self, text: str, shards: Sequence[Path]) -> None:
        self.text, self._shards = text, list(shards)
        indices = [_index(shard) for shard in shards]
        self.passed_over = sum((passed_over for _, passed_over in indices), PassedOver())
        indexed = [(number, *sample) for number, (samples, _) in enumerate(indices) for sample in samples]
        self._shard = np.array([sample[0] for sample in indexed], dtype=np.int32)
        self._names = Names.of(sample[1] for sample in indexed)
        self._offsets = np.array([sample[2] for sample in indexed], dtype=np.int64)
        self._sizes = np.array([sample[3] for sample in indexed], dtype=np.int64)
        self._labels, self.classes = found_labels(text, [sample[4] for sample in indexed])

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
        return fingerprint(self.classes, self._names, self._labels, self._sizes.tolist())


def _index(shard: Path) -> _Index:
    """The samples of a shard, from the index beside it where that is of this very file."""
    beside = shard.with_name(shard.name + INDEX_SUFFIX)
    try:
        status = shard.stat()
    except OSError as error:
        raise DataError(f"{shard}: cannot be read ({error.strerror})") from None
    state = {"version": 2, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    try:
        kept = json.loads(beside.read_text(encoding="utf-8"))
        if {name: kept[name] for name in state} == state:
            samples = [_checked(*sample, end=status.st_size) for sample in kept["samples"]]
            return samples, _counts(kept["passed_over"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass  # none yet, or a damaged one
    samples, passed_over = _scan(shard)
    _keep(beside, {**state, "samples": samples, "passed_over": passed_over.as_dict()})
    return samples, passed_over


def _counts(kept: dict[str, dict[str, int]]) -> PassedOver:
    """What an index says was passed over. ValueError where it can't be that."""
    images, beside = (Counter(kept[name]) for name in ("images", "beside"))
    if not all(isinstance(what, str) and type(count) is int for what, count in (images + beside).items()):
        raise ValueError
    return PassedOver(images, beside)


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


def _scan(shard: Path) -> _Index:
    images, beside = Counter[str](), Counter[str]()
    try:
        with tarfile.open(shard, "r:") as tar:
            files = []
            for member in tar:
                if PurePosixPath(member.name).name.startswith("."):
                    beside["hidden file"] += member.isreg()
                elif member.isreg():
                    files.append(member)
                elif not member.isdir():
                    images["link or other entry that is no file"] += 1
            _check_end(tar)
            samples = [_sample(tar, members, images) for members in _grouped(files, images, beside)]
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{shard}: not an uncompressed and complete tar file ({error})") from None
    return samples, PassedOver(+images, +beside)


def _check_end(tar: tarfile.TarFile) -> None:
    """Raises where the members end otherwise than in zeros or at the file's end: tarfile takes that for the end too."""
    if tar.fileobj is not None:
        tar.fileobj.seek(tar.offset)
        if any(tar.fileobj.read(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError(f"damaged or cut at byte {tar.offset:,}")


def _grouped(files: list[tarfile.TarInfo], images: Counter[str], beside: Counter[str]) -> list[list[tarfile.TarInfo]]:
    """The files of each sample with an image, in order; what belongs to none is counted.

    Labels that lie apart from their image, as in a tar of all images and then all labels, find it by the key.
    """
    files = _last_of_each_name(files, images)
    runs = [run for _, near in groupby(files, _first_part) for run in _by_key(list(near))]
    samples = {key: members for key, members in runs if any(_is_image(member) for member in members)}
    for key, members in runs:
        if key in samples and samples[key] is not members:
            samples[key] += members
        elif key not in samples:
            for what, count in suffix_of(PurePosixPath(member.name).name for member in members).items():
                if what in _LABELS:
                    images[f"{what} {_ALONE}"] += count
                else:
                    (beside if is_beside(what) else images)[what] += count
    return list(samples.values())


def _last_of_each_name(files: list[tarfile.TarInfo], images: Counter[str]) -> list[tarfile.TarInfo]:
    """Without files that a later one of the same name replaces, as it does where a tar is unpacked."""
    last = {member.name: place for place, member in enumerate(files)}
    images[_REPLACED] += sum(_is_image(member) and last[member.name] != place for place, member in enumerate(files))
    return [member for place, member in enumerate(files) if last[member.name] == place]


def _by_key(members: list[tarfile.TarInfo]) -> list[tuple[str, list[tarfile.TarInfo]]]:
    """Members whose names agree up to the first dot, by the shortest key among them that each begins with."""
    keys = [_whole_key(member) for member in members]
    there = set(keys)
    found: dict[str, list[tarfile.TarInfo]] = {}
    for key, member in zip(keys, members, strict=True):
        dots = [place for place, letter in enumerate(key) if letter == "."]
        own = next((key[:dot] for dot in dots if key[:dot] in there), key)
        found.setdefault(own, []).append(member)
    return list(found.items())


def _first_part(member: tarfile.TarInfo) -> str:
    path = PurePosixPath(member.name)
    return str(path.parent / path.name.partition(".")[0])


def _whole_key(member: tarfile.TarInfo) -> str:
    """A name without its last ending, where that is one."""
    path = PurePosixPath(member.name)
    ending = next(iter(suffix_of([path.name])))
    return str(path.parent / (path.name[: -len(ending)] if path.name.lower().endswith(ending) else path.name))


def _is_image(member: tarfile.TarInfo) -> bool:
    return is_image_name(PurePosixPath(member.name).name)


def _sample(tar: tarfile.TarFile, members: list[tarfile.TarInfo], left: Counter[str]) -> _Sample:
    """One sample: the image whose key is the shortest, the first of those, and its label where it has one."""
    images = [member for member in members if _is_image(member)]
    image = min(images, key=lambda member: len(_whole_key(member)))
    left[_SECOND] += len(images) - 1
    label: int | str | None = None
    for member in members:
        ending = member.name.rpartition(".")[2].lower()
        file = tar.extractfile(member) if label is None and ending in ("cls", "json") else None
        if file is not None:
            label = _label(file.read(), ending)
    return image.name, image.offset_data, image.size, label


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
