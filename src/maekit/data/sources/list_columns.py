"""A list file as columns, by the rule of `list_lines`: plain lines are cut many at once, all others one by one.

A line is plain where the places of its delimiters alone say what is what, as in `a/b.png,3` and in tables without
quotes. The file lies in memory as it is, and is looked at a block at a time; what is left of it there is its paths.
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from maekit.data.shared import Memory, SharedArray, room
from maekit.data.sources.list_lines import Header, header_of, read_line, said
from maekit.data.sources.source import IMAGE_SUFFIXES, Names, cut

_BLOCK = 2**22  # bytes
_MARK = b"\xef\xbb\xbf"  # of byte order
_LF, _CR, _QUOTE, _COMMENT, _DOT = b'\n\r"#.'
_END = re.compile(rb"\r\n|\r|\n")

Places = NDArray[np.int64]
Codes = NDArray[np.int32]


def _among(*which: int) -> NDArray[np.bool_]:
    """For each byte whether it is one of these."""
    return np.isin(np.arange(256), which)


_BEYOND_ASCII = set(range(0x80, 0x100)) - {0xC2, 0xE1, 0xE2, 0xE3}  # which may begin one of Unicode's blanks
_BEGINS, _ENDS = _among(*range(0x21, 0x7F), *_BEYOND_ASCII), _among(*range(0x21, 0x7F))
_SEPARATES = _among(*b",;\t ")
_LETTERS = _among(*b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_INSIDE = _LETTERS | _among(*b"0123456789_-", *_BEYOND_ASCII)  # a label


@dataclass
class Words:
    """A column of words, each known by its number; the empty one's is 0."""

    numbers: dict[str, int] = field(default_factory=lambda: {"": 0})
    codes: Codes = field(default_factory=lambda: np.empty(0, np.int32))
    """The number of each image's; none where there is no such column."""

    def number(self, word: str) -> int:
        """A word's, new where the word is."""
        return self.numbers.setdefault(word, len(self.numbers))

    def coded(self, block: NDArray[np.uint8], starts: Places, ends: Places) -> Codes:
        """Numbers of the words at some places of a block."""
        offsets, data = np.cumsum(np.append(0, ends - starts)), cut(block, starts, ends)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
        found = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(starts), buffers).dictionary_encode()
        words = (word.decode("utf-8", "surrogateescape") for word in found.dictionary.to_pylist())
        return np.fromiter(map(self.number, words), np.int32)[found.indices.to_numpy()]


@dataclass
class Columns:
    """The images of a list, and its column names if it has them."""

    header: Header | None
    names: Names
    lines: NDArray[np.int32]
    """Numbers of their lines, from 1."""
    labels: Words
    splits: Words
    further: int
    """The most columns after a label, where they have no names."""

    def where(self, chosen: NDArray[np.bool_]) -> "Columns":
        """Some of the images."""
        labels, splits = (Words(words.numbers, words.codes[chosen]) for words in (self.labels, self.splits))
        return Columns(self.header, self.names.where(chosen), self.lines[chosen], labels, splits, self.further)


class _Cells(NamedTuple):
    """Where path, label and split of each line stand in a block; nowhere in lines that are not plain."""

    plain: NDArray[np.bool_]
    path: tuple[Places, Places]
    label: tuple[Places, Places]
    split: tuple[Places, Places]


def read_columns(text: str, content: Memory, size: int) -> Columns:
    """The images of a list that is the first `size` bytes of `content`, where nothing but its paths is left then.

    Raises DataError as `read_line` does. text: the source, for errors.
    """
    data = SharedArray(size, np.uint8, content)
    header, at, line = _beginning(content, size)
    end_of_line = b"\n" if content.find(b"\n", 0, size) >= 0 else b"\r"
    found = Columns(header, Names.of([]), np.empty(0, np.int32), Words(), Words(), 0)
    written, parts = 0, [(found.lines, found.lines, found.labels.codes, found.splits.codes)]
    while at < size:
        stop = (content.find(end_of_line, at + _BLOCK, size) + 1) or size
        block = data[at:stop]
        starts, stops, numbers, line = _lines(block, line)
        cells, labels, splits = _read(text, block, starts, stops, numbers, found)
        paths, kept = cut(block, *cells.path), cells.plain
        data[written : written + len(paths)] = paths  # no more than has been read
        lengths = (cells.path[1] - cells.path[0])[kept].astype(np.int32)
        parts.append((lengths, numbers[kept].astype(np.int32), labels[kept], splits[kept[: len(splits)]]))
        at, written = stop, written + len(paths)
    content.cut(written)
    lengths, found.lines, found.labels.codes, found.splits.codes = map(np.concatenate, zip(*parts, strict=True))
    ends = room(len(lengths), np.int64)
    np.cumsum(lengths, out=ends)
    found.names = Names(data[:written], ends)
    return found


def _beginning(content: Memory, size: int) -> tuple[Header | None, int, int]:
    """The column names, where the images' lines begin, and the number of the first of these."""
    at, number = len(_MARK) if content[: len(_MARK)] == _MARK else 0, 1
    while at < size:
        end = _END.search(content, at, size)
        stop, after = end.span() if end else (size, size)
        line = said(content[at:stop].decode("utf-8", "surrogateescape"))
        if line is not None:
            header = header_of(line)
            return (None, at, number) if header is None else (header, after, number + 1)
        at, number = after, number + 1
    return None, at, number


def _lines(block: NDArray[np.uint8], number: int) -> tuple[Places, Places, Places, int]:
    """Start, end and number of each line of a block that is not empty, and the number of the line after the block."""
    is_end, has_returns = block == _LF, (block == _CR).any()
    if has_returns:
        is_end |= block == _CR
    at = np.flatnonzero(is_end)
    starts, ends = np.append(0, at + 1), np.append(at, len(block))
    inside = np.zeros(len(starts), bool)
    if has_returns:  # what is between CR and LF is no line
        inside[1:-1] = (np.diff(at) == 1) & (block[at[:-1]] == _CR) & (block[at[1:]] == _LF)
    numbers = number + np.arange(len(starts)) - np.cumsum(inside)
    some = ends > starts
    return starts[some], ends[some], numbers[some], int(numbers[-1])


def _read(
    text: str, block: NDArray[np.uint8], starts: Places, ends: Places, numbers: Places, found: Columns
) -> tuple[_Cells, Codes, Codes]:
    """The cells of a block's lines, `plain` being those of images, and the numbers of their labels and splits.

    The paths of lines that are not plain may be written differently there: they are written anew, where the line was.
    """
    cells = _plain(block, starts, ends, found.header)
    has_splits = found.header is not None and found.header.split is not None
    labels = found.labels.coded(block, *cells.label)
    splits = found.splits.coded(block, *cells.split) if has_splits else found.splits.codes
    for place in np.flatnonzero(~cells.plain).tolist():
        start = int(starts[place])
        words = said(block[start : ends[place]].tobytes().decode("utf-8", "surrogateescape"))
        if words is None:
            continue
        line = read_line(text, found.header, int(numbers[place]), words)
        path = line.path.encode("utf-8", "surrogateescape")
        block[start : start + len(path)] = np.frombuffer(path, np.uint8)
        cells.path[1][place] = start + len(path)
        labels[place] = found.labels.number(line.label)
        if has_splits:
            splits[place] = found.splits.number(line.split)
        found.further = max(found.further, line.further)
        cells.plain[place] = True
    return cells, labels, splits


def _plain(block: NDArray[np.uint8], starts: Places, ends: Places, header: Header | None) -> _Cells:
    first = block[starts]
    plain = _BEGINS[first] & (first != _QUOTE) & (first != _COMMENT) & _ENDS[block[ends - 1]]
    if header is not None:
        quotes = np.flatnonzero(block == _QUOTE)
        plain &= np.searchsorted(quotes, starts) == np.searchsorted(quotes, ends)
    none = starts, starts
    if header is None or header.is_loose:
        path, label, split = *_loose(block, starts, ends, plain), none
    elif header.columns == 1:
        path, label, split = (starts, ends), none, none
    else:
        path, label, split = _table(block, starts, ends, plain, header)
    nowhere = ((np.where(plain, start, starts), np.where(plain, end, starts)) for start, end in (path, label, split))
    return _Cells(plain, *nowhere)


def _loose(
    block: NDArray[np.uint8], starts: Places, ends: Places, plain: NDArray[np.bool_]
) -> tuple[tuple[Places, Places], tuple[Places, Places]]:
    """Path and label, which a separator that follows an image's ending parts; or a path alone. Others aren't plain."""
    inside, dots = _INSIDE[block], np.flatnonzero(block[:-1] == _DOT)
    inside[dots[~_LETTERS[block[dots + 1]]]] = True  # 3.0, but nothing that could be an image's ending
    around = np.append(0, np.flatnonzero(~inside))
    at = around[np.searchsorted(around, ends) - 1]
    labelled = (at > starts) & (at < ends - 1) & _SEPARATES[block[at]]
    path_ends = np.where(labelled, at, ends)
    plain &= _after_image(block, path_ends) & (~labelled | _ENDS[block[np.minimum(at + 1, ends - 1)]])
    return (starts, path_ends), (np.where(labelled, at + 1, ends), ends)


def _after_image(block: NDArray[np.uint8], at: Places) -> NDArray[np.bool_]:
    """Whether an image's ending stands before each of these places."""
    if len(block) < 8:
        return np.zeros(len(at), bool)
    eights = np.ndarray(len(block) - 7, "<u8", block, strides=(1,))
    before, found = eights[np.maximum(at, 8) - 8], at < 0
    for suffix in IMAGE_SUFFIXES:
        lower = bytes(0x20 * chr(letter).isalpha() for letter in suffix.encode())
        wanted, small = (np.uint64(int.from_bytes(part, "little")) for part in (suffix.encode(), lower))
        found |= (before >> np.uint64(64 - 8 * len(suffix)) | small) == wanted
    return found & (at >= 8)


def _table(
    block: NDArray[np.uint8], starts: Places, ends: Places, plain: NDArray[np.bool_], header: Header
) -> list[tuple[Places, Places]]:
    """Path, label and split of a table's lines. Those with more or fewer cells, or blanks around them, aren't plain."""
    at = np.append(np.flatnonzero(block == ord(header.delimiter)), len(block))
    first, last = np.searchsorted(at, starts), header.columns - 1
    plain &= np.searchsorted(at, ends) - first == last
    cells = []
    for column in (header.path, header.label, header.split):
        start = starts if not column else at[np.minimum(first + column - 1, len(at) - 1)] + 1
        end = starts if column is None else ends if column == last else at[np.minimum(first + column, len(at) - 1)]
        start, end = np.where(plain, start, starts), np.where(plain, end, starts)
        filled = end > start
        plain &= np.where(
            filled, _BEGINS[block[np.minimum(start, ends - 1)]] & _ENDS[block[end - 1]], column != header.path
        )
        cells.append((start, end))
    return cells
