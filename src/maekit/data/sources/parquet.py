"""Parquet files in the layout of the Hugging Face hub: a column of `image{bytes, path}` and, maybe, one of labels."""

import json
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from maekit.data.sources.labels import Classes, Labels, as_label, integer_labels, string_labels
from maekit.data.sources.source import file_size, fingerprint, read_file
from maekit.errors import DataError, ImageError

_CACHE_BYTES = 256 * 2**20
_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "labels", "fine_label")
_SPLIT = re.compile(r"(.+?)-\d{5}-of-\d{5}")


class ParquetSource:
    """The rows of one or several files, in the order given.

    Class names come from the hub's metadata in the schema, from the strings in the label column, or are the labels'
    numbers. Rows are read a row group at a time, and a process keeps the last groups up to 256 MiB. Shuffling a source
    larger than that decodes a whole group for most images: a folder or tar shards are faster then.
    """

    def __init__(self, text: str, files: Sequence[Path]) -> None:
        self.text = text
        self._files = list(files)
        _refuse_several_splits(text, self._files)
        schema, groups, rows = self._read_footers()
        features = _hub_features(schema)
        image = _find(schema, features, "Image", _IMAGE_NAMES)
        if image is None:
            raise DataError(f"{text}: {files[0].name} has no column of images, only {', '.join(schema.names)}")
        self._image = image
        self._groups = groups
        self._group_starts = np.cumsum([0, *rows], dtype=np.int64)
        self._file_starts = {file: int(self._group_starts[groups.index((file, 0))]) for file, _ in groups}
        label = _find(schema, features, "ClassLabel", _LABEL_NAMES)
        self._labels, self.classes = self._read_labels(label, features)
        if len(self._labels) != len(self):
            raise DataError(f"{text}: is damaged: {len(self):,} rows are announced, there are {len(self._labels):,}")
        self._cache: OrderedDict[int, pa.ChunkedArray] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": OrderedDict()}

    def __len__(self) -> int:
        return int(self._group_starts[-1])

    def path(self, index: int) -> str:
        file, _ = self._groups[self._group(index)]
        return f"{self._files[file]}:{index - self._file_starts[file]}"

    def label(self, index: int) -> int | None:
        return as_label(self._labels[index])

    def read(self, index: int) -> bytes:
        group = self._group(index)
        try:
            row = self._rows(group)[index - int(self._group_starts[group])].as_py()
        except (IndexError, UnicodeDecodeError):
            raise ImageError("its row is damaged") from None
        image, path = (row.get("bytes"), row.get("path")) if isinstance(row, dict) else (row, None)
        if isinstance(image, bytes):
            return image
        if isinstance(path, str) and path:
            return read_file(self._files[self._groups[group][0]].parent / path)
        raise ImageError("the row holds no image")

    def fingerprint(self) -> str:
        return fingerprint(
            self.classes, (file.name for file in self._files), self._labels, (file_size(file) for file in self._files)
        )

    def _group(self, index: int) -> int:
        return int(np.searchsorted(self._group_starts, index, side="right")) - 1

    def _rows(self, group: int) -> pa.ChunkedArray:
        if group not in self._cache:
            number, within = self._groups[group]
            try:
                with _opened(self._files[number]) as file:
                    table = file.read_row_group(within, columns=[self._image], use_threads=False)
            except DataError as error:
                raise ImageError(f"its row group cannot be read: {error}") from None
            self._cache[group] = table.column(0)
            while len(self._cache) > 1 and sum(rows.nbytes for rows in self._cache.values()) > _CACHE_BYTES:
                self._cache.popitem(last=False)
        self._cache.move_to_end(group)
        return self._cache[group]

    def _read_footers(self) -> tuple[pa.Schema, list[tuple[int, int]], list[int]]:
        """The first file's schema, and (file, group) and number of rows of every row group that has any."""
        schema: pa.Schema | None = None
        groups, rows = [], []
        for number, path in enumerate(self._files):
            with _opened(path) as file:
                schema = schema or file.schema_arrow
                if file.schema_arrow.names != schema.names:
                    raise DataError(f"{path}: its columns differ from those of {self._files[0].name}")
                counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            groups += [(number, group) for group in range(len(counts))]
            rows += counts
        return schema, groups, rows

    def _read_labels(self, column: str | None, features: dict[str, dict[str, Any]]) -> tuple[Labels, Classes]:
        if column is None:
            return np.full(len(self), -1), None
        chunks = []
        for path in self._files:
            with _opened(path) as file:
                chunks += file.read(columns=[column], use_threads=False).column(0).chunks
        try:  # files may keep integers of different widths
            values = pa.chunked_array([c.cast(pa.int64()) if pa.types.is_integer(c.type) else c for c in chunks])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(f"{self.text}: column {column} cannot be read as labels ({error})") from None
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            try:
                return string_labels(values.to_pylist())
            except UnicodeDecodeError:
                raise DataError(f"{self.text}: column {column} is damaged: not all of it is text") from None
        if not pa.types.is_integer(values.type):
            raise DataError(f"{self.text}: column {column} holds {values.type}; labels are integers or strings")
        return integer_labels(self.text, values.fill_null(-1).to_numpy(), features.get(column, {}).get("names"))


def _refuse_several_splits(text: str, files: list[Path]) -> None:
    splits = {match[1] for file in files if (match := _SPLIT.match(file.name))}
    if len(splits) > 1:
        raise DataError(
            f"{text}: holds several splits ({', '.join(sorted(splits))}); name one by its files, such as "
            f"{files[0].parent / (min(splits) + '-*.parquet')}"
        )


def _hub_features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Columns as the hub describes them, `_type` among the keys; empty where it does not."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _find(schema: pa.Schema, features: dict[str, dict[str, Any]], kind: str, names: tuple[str, ...]) -> str | None:
    """The column of that kind in the hub's metadata, else the first with a usual name."""
    described = [name for name in schema.names if features.get(name, {}).get("_type") == kind]
    usual = [name for name in names if name in schema.names]
    return next((name for name in usual if name in described), next(iter(described + usual), None))


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """The file, so that whatever is wrong with it inside the block becomes a DataError."""
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        reason = str(error).split("\n", 1)[0]
        raise DataError(f"{path}: not a readable parquet file ({reason})") from None
