"""Parquet files in the layout of the Hugging Face hub: a column of `image{bytes, path}` and, maybe, one of labels."""

import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from maekit.data.sources.image_column import choose_column
from maekit.data.sources.image_copy import ImageCopies, copied
from maekit.data.sources.labels import Classes, LabelledImages, Labels, integer_labels, no_labels, string_labels
from maekit.data.sources.list_lines import PATH_COLUMNS
from maekit.data.sources.passed_over import PassedOver
from maekit.data.sources.source import file_size, fingerprint, home_path, read_file
from maekit.errors import DataError, ImageError

_CACHE_BYTES = 256 * 2**20
_LABEL_NAMES = ("label", "labels", "fine_label")


class ParquetSource(LabelledImages):
    """The rows of one or several files, in the order given.

    Class names come from the hub's metadata in the schema, from the strings in the label column, or are the labels'
    numbers. Rows are read a row group at a time, and a process keeps the last groups up to 256 MiB. In any other order
    than theirs that is a whole group for most images: the images of larger sources are copied for it.
    """

    def __init__(self, text: str, files: Sequence[Path], image_column: str | None = None) -> None:
        """image_column: the one that holds the images; None: the only one that can, or has the usual name."""
        self.text, self._files = text, list(files)
        schema, groups, rows = self._read_footers()
        features = _hub_features(schema)
        self._image, said = _image_column(text, schema, features, image_column)
        self._holds_bytes = _holds_bytes(schema.field(self._image).type)
        self._groups = groups
        self._group_starts = np.cumsum([0, *rows], dtype=np.int64)
        starts = zip(groups, self._group_starts.tolist(), strict=False)
        self._file_starts = {file: start for (file, group), start in starts if group == 0}
        self._labels, self.classes = self._read_labels(label_column(schema), features)
        if len(self._labels) != len(self):
            raise DataError(f"{text}: is damaged: {len(self):,} rows are announced, there are {len(self._labels):,}")
        self.passed_over = PassedOver(notes=(said,) if said else ())
        self._cache: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._copies: ImageCopies | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": OrderedDict()}

    def __len__(self) -> int:
        return int(self._group_starts[-1])

    def path(self, index: int) -> str:
        file, _ = self._groups[self._group(index)]
        return f"{self._files[file]}:{index - self._file_starts[file]}"

    def copy_images(self, limit: float) -> None:
        """Make them readable in any order, by copies in the cache folder, which may take `limit` bytes in all."""
        if not self._holds_bytes:
            return
        with _readable(self.text):
            self._copies = copied(self.text, self._files, self._image, limit, least=_CACHE_BYTES)

    def read(self, index: int) -> bytes:
        group = self._group(index)
        copy = self._copies.read(self._groups[group][0], index) if self._copies is not None else None
        if copy is not None:
            return copy
        try:
            row = self._rows(group)[index - int(self._group_starts[group])].as_py()
        except (IndexError, UnicodeDecodeError):
            raise ImageError("its row is damaged") from None
        image, path = (row.get("bytes"), row.get("path")) if isinstance(row, dict) else (row, row)
        if isinstance(image, bytes):
            return image
        if isinstance(path, str) and path:
            return read_file(self._files[self._groups[group][0]].parent / home_path(path))
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
        """The first file's schema, and (file, group) and number of rows of every row group that has any.

        Files may have their columns in different orders; DataError where one lacks some.
        """
        schema: pa.Schema | None = None
        groups, rows = [], []
        for number, path in enumerate(self._files):
            with _opened(path) as file:
                schema = schema or file.schema_arrow
                if odd := sorted({*file.schema_arrow.names} ^ {*schema.names}):
                    raise DataError(
                        f"{path}: its columns differ from those of {self._files[0].name}, by {', '.join(odd)}"
                    )
                counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            groups += [(number, group) for group in range(len(counts))]
            rows += counts
        return schema, groups, rows

    def _read_labels(self, column: str | None, features: dict[str, dict[str, Any]]) -> tuple[Labels, Classes]:
        if column is None:
            return no_labels(len(self))
        chunks, names = [], features.get(column, {}).get("names")
        for path in self._files:
            with _opened(path) as file:
                others = _hub_features(file.schema_arrow).get(column, {}).get("names") or names
                if names and others != names:
                    raise DataError(f"{path}: names other classes than {self._files[0].name}; open one of them")
                chunks += file.read(columns=[column], use_threads=False).column(0).chunks
        try:  # files may keep integers of different widths, and words as a dictionary each
            values = pa.chunked_array([_plain(chunk) for chunk in chunks])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(f"{self.text}: column {column} cannot be read as labels ({error})") from None
        if pa.types.is_large_string(values.type):
            try:
                return string_labels(values.to_pylist())
            except UnicodeDecodeError:
                raise DataError(f"{self.text}: column {column} is damaged: not all of it is text") from None
        if not pa.types.is_integer(values.type):
            raise DataError(f"{self.text}: column {column} holds {values.type}; labels are integers or strings")
        return integer_labels(self.text, values.fill_null(-1).to_numpy(), names)


def label_column(schema: pa.Schema) -> str | None:
    """The column of labels."""
    return _find(schema, _hub_features(schema), "ClassLabel", _LABEL_NAMES)


def _plain(chunk: pa.Array) -> pa.Array:
    """Labels as int64 or large_string, where they are integers or text in any form."""
    if pa.types.is_dictionary(chunk.type):
        chunk = chunk.dictionary_decode()
    if pa.types.is_integer(chunk.type):
        return chunk.cast(pa.int64())
    return chunk.cast(pa.large_string()) if _is_text(chunk.type) else chunk


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _can_be_images(kind: pa.DataType) -> bool:
    """Bytes, or the hub's pair of bytes and path."""
    if pa.types.is_struct(kind):
        return bool({"bytes", "path"} & {kind.field(number).name for number in range(kind.num_fields)})
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _holds_bytes(kind: pa.DataType) -> bool:
    return kind.get_field_index("bytes") >= 0 if pa.types.is_struct(kind) else _can_be_images(kind)


def _image_column(
    text: str, schema: pa.Schema, features: dict[str, dict[str, Any]], asked: str | None
) -> tuple[str, str]:
    """`choose_column` of those that the hub's metadata calls images, or else that hold bytes, or else paths by their
    name."""
    kinds = {name: schema.field(name).type for name in schema.names}
    found = [name for name in kinds if features.get(name, {}).get("_type") == "Image"]
    found = found or [name for name, kind in kinds.items() if _can_be_images(kind)]
    found = found or [name for name in PATH_COLUMNS if name in kinds and _is_text(kinds[name])]
    chosen, said = choose_column(text, kinds, found, asked)
    if not (_can_be_images(kinds[chosen]) or _is_text(kinds[chosen])):
        raise DataError(f"{text}: column {chosen} holds {kinds[chosen]}; images are bytes, or paths as text")
    return chosen, said


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
    with _readable(path), pq.ParquetFile(path) as file:
        yield file


@contextmanager
def _readable(name: Path | str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        reason = str(error).split("\n", 1)[0]
        raise DataError(f"{name}: not a readable parquet file ({reason})") from None
