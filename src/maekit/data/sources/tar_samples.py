"""The samples of a tar file in WebDataset's layout: which files belong together, and what is left of them.

A sample is a run of files with the same key: their names without the last ending, so that `at 10.15.01.png` keeps its
dots. `000017.seg.png` and `000017.caption.txt` belong to `000017` where that is a key too: `000017.jpg`, `000017.cls`.
"""

import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from maekit.data.sources.passed_over import PassedOver, is_beside, suffix
from maekit.data.sources.source import is_image_name
from maekit.errors import DataError

CLASSES_MEMBER = ".classes.json"
"""A member that gives the names of the classes, in the order of their numbers."""

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_LABEL_KEYS = ("label", "cls", "class")  # of a sample's .json
_LABELS = (".cls", ".json")
_SECOND, _REPLACED, _ALONE = "second image in a sample", "image replaced by a later one of its name", "without an image"


class Sample(NamedTuple):
    """The image's name, offset and size in bytes, and its label."""

    name: str
    offset: int
    size: int
    label: int | str | None


class _File(NamedTuple):
    """A member, its suffix, its name up to the first dot and without the last ending, and whether it is an image."""

    member: tarfile.TarInfo
    suffix: str
    first_part: str
    key: str
    is_image: bool


def samples_of(shard: os.PathLike[str]) -> tuple[list[Sample], list[str] | None, PassedOver]:
    """The samples with an image, in order, the classes' names where it gives them, and what is left.

    Raises DataError where the file is no uncompressed and complete tar.
    """
    images, beside = Counter[str](), Counter[str]()
    classes: list[str] | None = None
    try:
        with tarfile.open(shard, "r:") as tar:
            files = []
            for member in tar:
                if member.name == CLASSES_MEMBER and (classes := _classes(tar, member)) is not None:
                    continue
                if member.name.rpartition("/")[2].startswith("."):
                    beside["hidden file"] += member.isreg()
                elif member.isreg():
                    files.append(_file(member))
                elif not member.isdir():
                    images["link or other entry that is no file"] += 1
            _check_end(tar)
            samples = [_sample(tar, files, images) for files in _grouped(files, images, beside)]
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{shard}: not an uncompressed and complete tar file ({error})") from None
    return samples, classes, PassedOver(+images, +beside)


def _classes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> list[str] | None:
    """Names in a member that is a list of them."""
    opened = tar.extractfile(member)
    try:
        names = json.loads(opened.read() if opened is not None else b"")
    except ValueError:
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _check_end(tar: tarfile.TarFile) -> None:
    """Raises where the members end otherwise than in zeros or at the file's end: tarfile takes that for the end too."""
    if tar.fileobj is not None:
        tar.fileobj.seek(tar.offset)
        if any(tar.fileobj.read(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError(f"damaged or cut at byte {tar.offset:,}")


def _file(member: tarfile.TarInfo) -> _File:
    folder, _, name = member.name.rpartition("/")
    above = "".join(f"{part}/" for part in folder.split("/") if part not in ("", "."))
    ending = suffix(name)
    key = name[: -len(ending)] if name.lower().endswith(ending) else name
    return _File(member, ending, above + name.partition(".")[0], above + key, is_image_name(name))


def _grouped(files: list[_File], images: Counter[str], beside: Counter[str]) -> list[list[_File]]:
    """The files of each sample with an image, in order; what belongs to none is counted.

    Labels that lie apart from their image, as in a tar of all images and then all labels, find it by the key.
    """
    files = _last_of_each_name(files, images)
    runs = [run for _, near in groupby(files, attrgetter("first_part")) for run in _by_key(list(near))]
    samples = {key: members for key, members in runs if any(file.is_image for file in members)}
    for key, members in runs:
        if key in samples and samples[key] is not members:
            samples[key] += members
        elif key not in samples:
            for file in members:
                if file.suffix in _LABELS:
                    images[f"{file.suffix} {_ALONE}"] += 1
                else:
                    (beside if is_beside(file.suffix) else images)[file.suffix] += 1
    return list(samples.values())


def _last_of_each_name(files: list[_File], images: Counter[str]) -> list[_File]:
    """Without files that a later one of the same name replaces, as it does where a tar is unpacked."""
    last = {file.member.name: file for file in files}
    images[_REPLACED] += sum(file.is_image and last[file.member.name] is not file for file in files)
    return [file for file in files if last[file.member.name] is file]


def _by_key(files: list[_File]) -> list[tuple[str, list[_File]]]:
    """Files whose names agree up to the first dot, by the shortest key among them that each begins with."""
    there = {file.key for file in files}
    found: dict[str, list[_File]] = {}
    for file in files:
        dots = [place for place, letter in enumerate(file.key) if letter == "."]
        own = next((file.key[:dot] for dot in dots if file.key[:dot] in there), file.key)
        found.setdefault(own, []).append(file)
    return list(found.items())


def _sample(tar: tarfile.TarFile, files: Sequence[_File], left: Counter[str]) -> Sample:
    """One sample: the image whose key is the shortest, the first of those, and its label where it has one."""
    images = [file for file in files if file.is_image]
    image = min(images, key=lambda file: len(file.key)).member
    left[_SECOND] += len(images) - 1
    label: int | str | None = None
    for file in files:
        ending = file.member.name.rpartition(".")[2].lower()
        opened = tar.extractfile(file.member) if label is None and ending in ("cls", "json") else None
        if opened is not None:
            label = _label(opened.read(), ending)
    return Sample(image.name, image.offset_data, image.size, label)


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
