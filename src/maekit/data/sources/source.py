"""What every source is made of: the protocol, compact names, reading a file, a fingerprint."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray

from maekit.data.sources.passed_over import PassedOver
from maekit.errors import ImageError

# fmt: off
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
    ".avif", ".jp2", ".npy",
)
# fmt: on
"""File name endings, in lower case, that make a file an image; what it really holds is seen when it is decoded."""

_SAMPLED = 64


def is_image_name(name: str) -> bool:
    """Whether a file of that name, without folders, is taken for an image. Hidden ones are not."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


class Source(Protocol):
    """Images by number, with labels where there are any.

    Every source can be pickled and shared with forked processes: files are opened when an image is read.
    """

    text: str
    """What the user wrote."""
    classes: tuple[str, ...] | None
    """Class names in label order; None: unlabelled."""
    passed_over: PassedOver
    """What was met where the images are and not taken."""

    def __len__(self) -> int: ...

    def path(self, index: int) -> str:
        """A name by which a person finds the image."""

    def label(self, index: int) -> int | None:
        """Its class; None where it has none."""

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """The encoded image, or an array [H, W] or [H, W, C] where nothing is encoded.

        Raises ImageError where the bytes cannot be had.
        """

    def size(self, index: int) -> int:
        """Bytes of what `read` gives, without reading it; -1 where that cannot be known."""

    def fingerprint(self) -> str:
        """SHA-256 over classes, names, labels and sizes; no image is opened for it."""


class Names(Sequence[str]):
    """Many strings in two arrays: workers share them, where a list would be copied by reference counting."""

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, end = self._ends[index], self._ends[index + 1]
        return self._bytes[start:end].tobytes().decode("utf-8", "surrogateescape")


def home_path(text: str) -> Path:
    """A path as typed: what is really called so, else with a leading ~ as somebody's home, where there is one."""
    path = Path(text)
    if not text.startswith("~") or path.exists():
        return path
    try:
        return path.expanduser()
    except RuntimeError:  # nobody of that name
        return path


def read_file(path: Path) -> bytes:
    """A file's bytes. Raises ImageError with the system's reason."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise ImageError((getattr(error, "strerror", None) or str(error)).lower()) from None


def file_size(path: Path) -> int:
    """Bytes, or -1 for a file that is not there."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return -1


def digests(source: Source, indices: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """Of those of the images that can be read, number and SHA-256."""
    for index in indices:
        try:
            data = source.read(index)
        except ImageError:
            continue
        yield index, hashlib.sha256(data if isinstance(data, bytes) else data.tobytes()).digest()


def sampled(source: Source) -> Iterator[str]:
    """What up to 64 images hold, evenly spread, in words for `fingerprint`."""
    indices = np.linspace(0, len(source) - 1, min(len(source), _SAMPLED)).round().astype(int).tolist()
    return (f"{index} {digest.hex()}" for index, digest in digests(source, indices))


def fingerprint(
    classes: Sequence[str] | None, names: Iterable[str], labels: NDArray[np.int64], sizes: Iterable[int]
) -> str:
    """SHA-256 in hex of what identifies a source without opening its images."""
    digest = hashlib.sha256(f"{len(labels)}\0".encode())
    for word in (*(classes or ()), "", *names):
        digest.update(word.encode("utf-8", "surrogateescape") + b"\0")
    digest.update(np.ascontiguousarray(labels, dtype="<i8").tobytes())
    digest.update(np.fromiter(sizes, dtype="<i8").tobytes())
    return digest.hexdigest()
