"""Images made smaller once, so that training need not decode large ones again and again, and the files that hold them.

An image whose shorter side is longer than asked for, or that has to be turned, is decoded in full, resized with
antialiasing and written as JPEG. Others keep their bytes: what is small enough already, and what JPEG cannot hold
(arrays, more than 8 bits, other than one or three channels).
"""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from maekit.data.arrays import NPY, Pixels, read_npy
from maekit.data.decode import MAX_PIXELS, decode, explained, is_turned, stored_mode
from maekit.data.sources.tar_samples import CLASSES_MEMBER
from maekit.data.tiff import MAGIC as TIFF
from maekit.data.transforms import resize

Form = Literal["tar", "parquet"]
How = Literal["made smaller", "small already", "not for JPEG"]

_SUFFIXES = {
    "JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "GIF": ".gif", "BMP": ".bmp", "WEBP": ".webp", "TIFF": ".tif",
    "PPM": ".ppm", "AVIF": ".avif", "JPEG2000": ".jp2", "npy": ".npy",
}  # fmt: skip
_STEM = 60  # letters that are kept of an image's own name
_ROWS = 100  # of a row group, which is read whole for one image


@dataclass(frozen=True)
class Small:
    """An image as it is packed."""

    data: bytes
    suffix: str
    how: How


class Entry(NamedTuple):
    """An image in a file: its name there, its label and its bytes."""

    name: str
    label: int | None
    data: bytes


def made_small(data: bytes | Pixels, short_side: int, quality: int) -> Small:
    """An image whose shorter side is at most so many pixels. quality: of the JPEG, 1 to 100, colour at half size.

    Raises ImageError where it cannot be read.
    """
    kept, suffix, image = _seen(data)
    if image is None:
        return Small(kept, suffix, "not for JPEG")
    height, width = image.shape[1:]
    shorter = min(height, width)
    if shorter <= short_side and (isinstance(data, np.ndarray) or not is_turned(data)):
        return Small(kept, suffix, "small already")
    if shorter > short_side:
        size = [max(1, round(side * short_side / shorter)) for side in (height, width)]
        image = resize(image, (size[0], size[1]), "bicubic")
    return Small(_as_jpeg(image, quality), ".jpg", "made smaller")


def _seen(data: bytes | Pixels) -> tuple[bytes, str, Tensor | None]:
    """The bytes of an image with the suffix they go by, and its pixels [3, H, W] uint8 if a JPEG can hold them."""
    with explained():
        if isinstance(data, np.ndarray):
            buffer = io.BytesIO()
            np.save(buffer, data, allow_pickle=False)
            is_picture = data.dtype == np.uint8 and (data.ndim == 2 or data.shape[-1] in (1, 3))
            return buffer.getvalue(), ".npy", decode(data, 3) if is_picture else None
        if data.startswith(NPY):
            read_npy(data, MAX_PIXELS)
            return data, ".npy", None
        bands = int(stored_mode(data).rpartition("x")[2]) if data.startswith(TIFF) else 3
        image = decode(data, 3 if bands in (1, 3, 4) else bands)
        suffix = _SUFFIXES[stored_mode(data).partition(" ")[0]]
    return data, suffix, None if image.is_floating_point() or len(image) != 3 else image


def _as_jpeg(image: Tensor, quality: int) -> bytes:
    """An image [3, H, W] uint8; one in grey if it has no colour."""
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    is_grey = bool(torch.equal(image[0], image[1]) and torch.equal(image[0], image[2]))
    picture = Image.fromarray(pixels[..., 0] if is_grey else pixels)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


def name_of(index: int, total: int, path: str, suffix: str) -> str:
    """What an image is called where it is packed: its number, for the order, and of its own name what fits."""
    stem = re.split(r"[/\\:]", path)[-1].rpartition(".")
    plain = re.sub(r"[^\w-]+", "_", stem[0] or stem[2])[:_STEM].strip("_")
    number = f"{index:0{len(str(max(total - 1, 99_999)))}d}"
    return (f"{number}_{plain}" if plain and not plain.isdigit() else number) + suffix


class Hashed:
    """A file that is written from its beginning to its end, and the SHA-256 of what is written."""

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest, self._bytes = file, hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self._file.write(view)
        self._digest.update(view)
        self._bytes += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self._bytes

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """Who opened the file closes it."""

    def described(self) -> dict[str, Any]:
        """What a manifest says of the file."""
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}


@contextmanager
def writing(form: Form, path: Path, classes: Sequence[str] | None) -> Iterator[tuple["_Tar | _Parquet", Hashed]]:
    """A file of images that `data.sources` reads, with the classes' names where there are any."""
    with path.open("wb") as file:
        sink = Hashed(file)
        writer: _Tar | _Parquet = _Tar(sink, classes) if form == "tar" else _Parquet(sink, classes)
        yield writer, sink
        writer.end()


class _Tar:
    """WebDataset's layout: NUMBER_NAME.jpg and, where it has a label, NUMBER_NAME.cls; the classes' names go before."""

    def __init__(self, sink: Hashed, classes: Sequence[str] | None) -> None:
        self._tar = tarfile.TarFile(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT)  # type: ignore[arg-type]
        if classes is not None:
            self._write(CLASSES_MEMBER, json.dumps(list(classes)).encode())

    def add(self, entry: Entry) -> None:
        self._write(entry.name, entry.data)
        if entry.label is not None:
            self._write(f"{entry.name.rpartition('.')[0]}.cls", str(entry.label).encode())

    def end(self) -> None:
        self._tar.close()

    def _write(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)  # of no time and nobody: the same images are the same bytes
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))


class _Parquet:
    """The hub's layout: image{bytes, path} and, with classes, label."""

    def __init__(self, sink: Hashed, classes: Sequence[str] | None) -> None:
        features: dict[str, Mapping[str, Any]] = {"image": {"_type": "Image"}}
        kinds = [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
        if classes is not None:
            features["label"] = {"_type": "ClassLabel", "names": list(classes)}
            kinds.append(("label", pa.int64()))
        self._schema = pa.schema(kinds, {"huggingface": json.dumps({"info": {"features": features}})})
        self._file = pq.ParquetWriter(sink, self._schema, compression="none", use_dictionary=False)
        self._waiting: list[Entry] = []

    def add(self, entry: Entry) -> None:
        self._waiting.append(entry)
        if len(self._waiting) == _ROWS:
            self._flush()

    def end(self) -> None:
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        rows = [{"image": {"bytes": entry.data, "path": entry.name}, "label": entry.label} for entry in self._waiting]
        if rows:
            self._file.write_table(pa.Table.from_pylist(rows, schema=self._schema))
        self._waiting.clear()
