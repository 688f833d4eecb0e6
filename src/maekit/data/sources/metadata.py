"""`metadata.csv`, `.jsonl` or `.parquet` beside images, as the hub's ImageFolder reads them.

A column `file_name` holds paths that count from the file's own folder; the labels are in the first column there is of
those a list's labels can have (`label`, `labels`, `class`, ...), whole numbers or names. They stand for the labels that
folders would give. A file that does not fit is left out, which is said.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from maekit.data.sources.contents import METADATA
from maekit.data.sources.labels import Classes, Labels, composed, found_labels
from maekit.data.sources.list_lines import LABEL_COLUMNS, NUMBER, SPLIT_COLUMN
from maekit.errors import DataError

_FILE_NAME = "file_name"

Label = int | str


class _UnfitError(Exception):
    """Why a file is left out."""


def read_metadata(
    text: str, files: Sequence[Path], images: Sequence[Path]
) -> tuple[tuple[Labels, Classes] | None, list[str]]:
    """Labels and classes of images, and what is to be said of the files.

    The labels are None where no file has any. Of two files on one image the one in the deeper folder counts.
    """
    known = {composed(str(image)): place for place, image in enumerate(images)}
    labels: dict[int, Label] = {}
    notes: list[str] = []
    for file in _one_a_folder(files, notes):
        name = file.name if file.parent == files[0].parent else str(file)
        try:
            rows = list(_rows(file))
            of_file, missing = _of_images(rows, file, known)
        except _UnfitError as reason:
            notes.append(f"{name} is left out: {reason}")
            continue
        labels.update(of_file)
        if missing:
            notes.append(f"{name} names {len(missing):,} images that are not there, such as {missing[0]}")
    if not labels:
        return None, notes
    if len(labels) < len(images):
        first = next(image for place, image in enumerate(images) if place not in labels)
        notes.append(f"{len(images) - len(labels):,} images have no label in the metadata, such as {first.name}")
    try:
        return found_labels(text, [labels.get(place) for place in range(len(images))]), notes
    except DataError as error:
        return None, [*notes, f"the metadata's labels are left out: {error}"]


def _one_a_folder(files: Sequence[Path], notes: list[str]) -> list[Path]:
    """Shallow ones first."""
    chosen: dict[Path, Path] = {}
    for file in sorted(files, key=lambda file: (len(file.parts), METADATA.index(file.name.lower()))):
        first = chosen.setdefault(file.parent, file)
        if first != file:
            notes.append(f"{file.name} is left out, as {first.name} lies beside it")
    return list(chosen.values())


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    try:
        if file.suffix.lower() == ".csv":
            yield from csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig"), newline=""), strict=True)
        elif file.suffix.lower() == ".jsonl":
            lines = file.read_text(encoding="utf-8-sig").split("\n")
            yield from (json.loads(line) for line in lines if line.strip())
        else:
            import pyarrow.parquet as pq

            yield from pq.read_table(file, partitioning=None).to_pylist()
    except (OSError, ValueError, csv.Error, RecursionError) as error:  # pyarrow's are among them
        raise _UnfitError(
            f"it cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from None


def _of_images(rows: Sequence[Any], file: Path, known: dict[str, int]) -> tuple[dict[int, Label], list[str]]:
    """Labels by the place of the image, and names of images that are not there."""
    if not all(isinstance(row, dict) for row in rows):
        raise _UnfitError("its lines are no objects with names and values")
    columns = list(dict.fromkeys(str(name) for row in rows for name in row if name is not None))
    if _FILE_NAME not in columns:
        raise _UnfitError(f"it has no column {_FILE_NAME}, only {', '.join(columns) or 'nothing'}")
    column = next((name for name in LABEL_COLUMNS if name in columns), None)
    if column is None:
        rest = ", ".join(name for name in columns if name != _FILE_NAME)
        raise _UnfitError(
            f"it has no column of labels ({', '.join(LABEL_COLUMNS[:3])}, ...), only {rest or _FILE_NAME}"
        )
    labels: dict[int, Label] = {}
    missing, splits = [], set()
    for row in rows:
        name, value = row.get(_FILE_NAME), row.get(column)
        place = _place(name, file.parent, known) if isinstance(name, str) and name else None
        if place is None:
            missing.append(str(name))
            continue
        if row.get(SPLIT_COLUMN):
            splits.add(str(row[SPLIT_COLUMN]))
        label = _label(value, column)
        if label is not None and labels.setdefault(place, label) != label:
            raise _UnfitError(f"it gives {name} two labels, {labels[place]} and {label}")
    if len(splits) > 1:
        there = sorted(splits)
        ways = " or ".join(f"{file}@{split}" for split in there)
        raise DataError(f"{file}: its column `split` tells {', '.join(there)} apart; take one of them: {ways}")
    if rows and len(missing) == len(rows):
        raise _UnfitError(f"none of the images it names is there; the first is {missing[0]}")
    return labels, missing


def _place(name: str, folder: Path, known: dict[str, int]) -> int | None:
    for spelt in (name, name.replace("\\", "/")):
        place = known.get(composed(str(folder / spelt.removeprefix("./"))))
        if place is not None:
            return place
    return None


def _label(value: Any, column: str) -> Label | None:
    if value is None or value == "" or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise _UnfitError(f"its column {column} holds {value!r:.40}; labels are whole numbers or names")
    if isinstance(value, int):
        return value
    number = NUMBER.fullmatch(value.strip())
    return int(number[1]) if number else value.strip()
