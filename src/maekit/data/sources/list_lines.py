"""The lines of a list file, by one rule whatever wrote it.

- Text in UTF-8, with or without a byte-order mark; lines end in LF, CR LF or CR. Blank lines and lines that begin
  with `#` are passed over.
- A first line of column names, one of which names the path (`path`, `file_name`, `image`, ...), makes the list a table:
  comma, semicolon or tab between columns in any order, quotes where a cell needs them; the labels' column is found by
  its name (`label`, `class`, ...), a column `split` parts the lines, others are left out, and said.
- Without column names a line is a path, up to the last known image ending that a comma, semicolon, tab or blank
  follows, then the label, then columns that are left out, and said. So commas and blanks inside paths survive. A path
  may stand in quotes. Where no image ending is found, the label is the integer after the last comma, if there is one.
"""

import csv
import re
from collections.abc import Sequence
from typing import NamedTuple

from maekit.data.sources.source import IMAGE_SUFFIXES, is_image_name
from maekit.errors import DataError

RULE = (
    "a list has a line per image, the path alone or path and label with a comma, semicolon, tab or blank between them, "
    "or begins with column names such as path,label"
)

PATH_COLUMNS = (
    "path", "file", "filename", "file_name", "filepath", "file_path", "image", "img", "image_path", "img_path",
    "image_file", "image_name",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "labels", "class", "class_name", "classname", "class_id", "category", "target", "label_id", "label_name",
)  # fmt: skip
SPLIT_COLUMN = "split"
NUMBER = re.compile(r"([+-]?\d{1,18})(?:\.0*)?")
"""A label that is a whole number, as spreadsheets write them too."""

_SUFFIXES = "|".join(re.escape(suffix) for suffix in IMAGE_SUFFIXES)
_IMAGE_FIRST = re.compile(rf"(.*(?:{_SUFFIXES}))(?:\s*([,;\t])\s*|\s+|$)(.*)", re.IGNORECASE | re.DOTALL)
_LABEL_LAST = re.compile(r"(.*?)\s*[,;\t]\s*([+-]?\d{1,18})", re.DOTALL)
_INTEGERS = re.compile(r"[+-]?\d+(?:\s+[+-]?\d+)+")


class Line(NamedTuple):
    """An image of a list: the number of its line from 1, label and split or "", columns left out."""

    number: int
    path: str
    label: str = ""
    split: str = ""
    further: int = 0


class Header(NamedTuple):
    """Column names: where path, label and split stand, None for those that are not there, and what is left out."""

    delimiter: str
    columns: int
    path: int
    label: int | None
    split: int | None
    left_out: tuple[str, ...]

    @property
    def is_loose(self) -> bool:
        """Whether a line with an image's ending is read as in a list without column names: its path may hold the
        delimiter, and its label be missing."""
        return self.columns == 2 and self.path == 0


def said(raw: str) -> str | None:
    """What a line says, without its ending; None where it is to be passed over."""
    return raw.strip(" \v\f") if raw.strip() and not raw.startswith("#") else None


def read_line(text: str, header: Header | None, number: int, line: str) -> Line:
    """A line of a list, as `said` gives it. text: the source, for errors.

    Raises DataError for a line of a table that has another number of cells than its header, or no path.
    """
    return _free(number, line.strip()) if header is None else _row(text, header, number, line)


def header_of(line: str) -> Header | None:
    """The column names in a first line, where a path's is among them and no cell names an image."""
    for delimiter in ("\t", ";", ",", " "):
        names = [name.strip().lower() for name in _cells(line, delimiter)]
        path = _first(names, PATH_COLUMNS)
        if path is None or any(map(is_image_name, names)):
            continue
        if delimiter == " " and not set(names) <= {*PATH_COLUMNS, *LABEL_COLUMNS, SPLIT_COLUMN}:
            continue  # `img 7`: a path without an ending, as likely as not
        if len(names) > 1 or delimiter == " ":
            label, split = _first(names, LABEL_COLUMNS), _first(names, (SPLIT_COLUMN,))
            rest = [name or "the nameless one" for at, name in enumerate(names) if at not in (path, label, split)]
            return Header(delimiter, len(names), path, label, split, tuple(rest))
    return None


def _first(names: Sequence[str], known: Sequence[str]) -> int | None:
    return next((names.index(name) for name in known if name in names), None)


def _cells(line: str, delimiter: str) -> list[str]:
    csv.field_size_limit(max(csv.field_size_limit(), len(line)))
    return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])


def _row(text: str, header: Header, number: int, line: str) -> Line:
    if header.columns == 1:  # nothing but a path, which may hold any delimiter
        return Line(number, _cells(line, "\0")[0].strip())
    if header.is_loose and '"' not in line and _IMAGE_FIRST.fullmatch(line):
        return _free(number, line)  # a path may hold the delimiter, and a line lack its label
    cells = [cell.strip() for cell in _cells(line, header.delimiter)]
    if len(cells) > header.columns == 2 and '"' not in line:  # a path that holds the delimiter
        cut = line.rpartition(header.delimiter) if header.path == 0 else line.partition(header.delimiter)
        cells = [cut[0].strip(), cut[2].strip()]
    if len(cells) != header.columns:
        raise DataError(
            f"{text}: line {number}: has {len(cells)} cells where the first line names {header.columns} columns; put "
            "paths that hold a delimiter in quotes"
        )
    if not cells[header.path]:
        raise DataError(f"{text}: line {number}: its path is empty")
    label, split = ("" if at is None else cells[at] for at in (header.label, header.split))
    return Line(number, cells[header.path], label, split)


def _free(number: int, line: str) -> Line:
    """A line of a list without column names."""
    if line.startswith('"') and (end := line.find('"', 1)) > 0:
        after = line[end + 1 :].strip()
        delimiter = after[:1] if after[:1] in (",", ";") else " "
        label, further = _label(after.lstrip(",;\t "), delimiter)
        return Line(number, line[1:end], label, further=further)
    found = _IMAGE_FIRST.fullmatch(line)
    if found:
        label, further = _label(found[3], found[2] or " ")
        return Line(number, found[1], label, further=further)
    last = _LABEL_LAST.fullmatch(line)
    return Line(number, last[1], last[2]) if last else Line(number, line)


def _label(rest: str, delimiter: str) -> tuple[str, int]:
    """The label in what follows a path, and how many columns follow it."""
    if delimiter == " " and not _INTEGERS.fullmatch(rest):
        return rest.strip('"'), 0  # a class's name may hold blanks
    cells = [cell.strip() for cell in (rest.split() if delimiter == " " else _cells(rest, delimiter))]
    return (cells[0], len(cells) - 1) if cells else ("", 0)
