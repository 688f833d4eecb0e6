"""A list file: a line per image, `path, label` or `path`."""

import logging
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maekit.data.shared import Memory, memory
from maekit.data.sources.folder import FilesSource
from maekit.data.sources.labels import Classes, Labels, found_labels, no_labels
from maekit.data.sources.list_columns import Columns, Words, read_columns
from maekit.data.sources.list_lines import NUMBER, RULE
from maekit.data.sources.passed_over import PassedOver
from maekit.data.sources.source import Names, home_path
from maekit.data.sources.splits import Splits, chosen
from maekit.errors import DataError

_LOOKED_AT = 1 << 16  # bytes in which a file that is not text shows it, so that a huge one is not read
_PACKED = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_UNREAD = (
    ".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".psd", ".svg", ".jxl", ".mov", ".mp4",
)  # fmt: skip
_SAMPLED = 20  # first paths of which one has to be there
_ADDRESS = re.compile(r"\w{2,}://")

log = logging.getLogger("maekit")


def open_list(text: str, file: Path, split: str | None = None) -> FilesSource:
    """The images that a list file names, in its order, by the rule of `list_lines`.

    split: take the lines alone whose column `split` says so. Raises DataError where the file cannot be read as text,
    where a line breaks the rule, where none of the first paths is there, or where a column `split` tells several apart
    and none is chosen.
    """
    columns = _of_split(text, read_columns(text, *_content(text, file)), split)
    names = _paths(text, file.parent, columns)
    header, further = columns.header, columns.further
    left_out = ", ".join(header.left_out) if header else f"{further} after the label" if further else ""
    notes = (f"columns of {text} that are left out: {left_out}",) if left_out else ()
    return FilesSource(text, file.parent, names, *_labels(text, columns), PassedOver(notes=notes))


def open_images(paths: Sequence[Path], text: str = "", labels: Sequence[Any] = ()) -> FilesSource:
    """Image files, named one by one; whether a file is there shows when it is read.

    text: what they are called together. labels: of each, a number from 0 or a word, -1 or None for none; empty: they
    are unlabelled.
    """
    found, classes = found_labels(text, [None if label == -1 else label for label in labels or [-1] * len(paths)])
    return FilesSource(text or ", ".join(map(str, paths)), Path(), map(str, paths), found, classes, PassedOver())


def _content(text: str, file: Path) -> tuple[Memory, int]:
    """What a file holds, and how many bytes that is."""
    try:
        with file.open("rb", buffering=0) as opened:
            status = os.fstat(opened.fileno())
            start = opened.read(_LOOKED_AT)
            rest = b"" if stat.S_ISREG(status.st_mode) or b"\0" in start else opened.readall()
            size = max(len(start), status.st_size) if not rest else len(start) + len(rest)
            content = memory(size)
            content.write(start + rest)
            while b"\0" not in start and (read := opened.readinto(memoryview(content)[content.tell() : size])):
                content.seek(read, os.SEEK_CUR)
            size = content.tell()
    except OSError as error:
        raise DataError(f"{text}: cannot be read ({error.strerror})") from None
    if content.find(b"\0", 0, size) >= 0:
        packed = "; unpack it, or pack its images as .tar" if file.suffix in _PACKED else ""
        if file.suffix.lower() in _UNREAD:
            packed = f"; maekit reads no {file.suffix.lower()}: convert it to .jpg or .png first"
        raise DataError(f"{text}: neither a list file, as it is not text, nor any other source that is known{packed}")
    return content, size


def _of_split(text: str, columns: Columns, split: str | None) -> Columns:
    words: dict[str, list[int]] = {}
    for word, code in _used(columns.splits).items():
        words.setdefault(word.lower(), []).append(code)
    splits = Splits(dict(sorted(words.items())), None) if words else None
    if split is not None:
        return columns.where(np.isin(columns.splits.codes, chosen(text, splits, split)))
    if len(words) > 1:
        choices = " or ".join(f"{text}@{name}" for name in sorted(words))
        raise DataError(
            f"{text}: its column `split` tells {', '.join(sorted(words))} apart; take one of them: {choices}"
        )
    return columns


def _used(column: Words) -> dict[str, int]:
    """The words that stand in a column, with their numbers."""
    present = np.zeros(len(column.numbers), bool)
    present[column.codes] = True
    return {word: code for word, code in column.numbers.items() if word and present[code]}


def _paths(text: str, folder: Path, columns: Columns) -> Names:
    """The paths as they are opened; DataError where none of the first is there."""
    names = columns.names
    starts = np.append(0, names.ends[:-1])
    if (names.data[starts[starts < len(names.data)]] == ord("~")).any():
        names = Names.of(str(home_path(n)) if n.startswith("~") and not (folder / n).exists() else n for n in names)
    sample = list(dict.fromkeys(names[index] for index in range(min(_SAMPLED, len(names)))))
    slashed = {name: name.replace("\\", "/") for name in sample if "\\" in name}
    if any(not (folder / name).exists() and (folder / other).exists() for name, other in slashed.items()):
        log.warning("%s: its backslashes are taken for slashes", text)
        for part in np.array_split(names.data, 1 + len(names.data) // _LOOKED_AT):
            part[part == ord("\\")] = ord("/")
        sample = [name.replace("\\", "/") for name in sample]
    if sample and not any((folder / name).exists() for name in sample):
        what = "is an address; maekit reads files, so download them first"
        if not _ADDRESS.match(columns.names[0]):
            what = f"is not there (looked for {folder / names[0]}), nor is any of the next"
        raise DataError(f"{text}: line {columns.lines[0]}: {columns.names[0]!r} {what}; {RULE}")
    return names


def _labels(text: str, columns: Columns) -> tuple[Labels, Classes]:
    """Numbers where all labels are numbers, words where none is one; DataError at the line that mixes them."""
    codes, used = columns.labels.codes, _used(columns.labels)
    if not used:
        return no_labels(len(codes))
    matches = {word: NUMBER.fullmatch(word) for word in used}
    numbers = {code: matches[word] is not None for word, code in used.items()}
    first = int(np.argmax(codes > 0))
    others = [code for code, is_number in numbers.items() if is_number != numbers[codes[first]]]
    if others:
        odd = int(np.argmax(np.isin(codes, others)))
        words = {code: word for word, code in used.items()}
        kinds = ("a number", "a word") if numbers[codes[first]] else ("a word", "a number")
        label, known = (repr(words[codes[place]]) for place in (odd, first))
        raise DataError(
            f"{text}: line {columns.lines[odd]}: label {label} is {kinds[1]}, where {known} in line "
            f"{columns.lines[first]} is {kinds[0]}; labels are whole numbers from 0, or class names, one or the other"
        )
    values: list[int | str | None] = [None] * len(columns.labels.numbers)
    for word, code in used.items():
        values[code] = int(match[1]) if (match := matches[word]) else word
    if min((value for value in values if isinstance(value, int) and value >= 0), default=0) == 1:
        log.warning("%s: labels begin at 1, so that class 0 has no image; maekit counts classes from 0", text)
    return found_labels(text, values, codes=codes)
