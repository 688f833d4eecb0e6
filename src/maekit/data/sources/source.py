"""What every source is made of: the protocol, compact names, reading a file, a fingerprint."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from maekit.data.shared import shared
from maekit.data.sources.passed_over import PassedOver
from maekit.errors import ImageError

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
    ".avif", ".jp2", ".npy",
)  # fmt: skip
"""File name endings, in lower case, that make a file an image; what it really holds is seen when it is decoded."""

_SAMPLED = 64
_AT_ONCE = 2**17  # names


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


def cut(data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The bytes of some parts of an array, in one. Each part begins where the one before ends, or later."""
    runs, taken = np.empty(2 * len(starts), np.int64), np.zeros(2 * len(starts), bool)
    runs[0::2], runs[1::2], taken[1::2] = starts - np.append(0, ends[:-1]), ends - starts, True
    return data[: runs.sum()][np.repeat(taken, runs)]


class Names:
    """Many strings in two arrays: their bytes one after another, and where each ends."""

    def __init__(self, data: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self.data, self.ends = shared(data), shared(ends)

    @staticmethod
    def of(names: Iterable[str]) -> "Names":
        """Those names, in order."""
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        return Names(np.frombuffer(b"".join(encoded), np.uint8), ends)

    @staticmethod
    def joined(parts: Sequence["Names"]) -> "Names":
        """All of them, one part after the other."""
        starts = np.cumsum([0, *(len(part.data) for part in parts)])
        ends = [part.ends + start for part, start in zip(parts, starts, strict=False)]
        return Names(np.concatenate([part.data for part in parts]), np.concatenate(ends))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        start = int(self.ends[index - 1]) if index else 0
        return self.data[start : int(self.ends[index])].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def places(self, names: Iterable[str]) -> NDArray[np.int64]:
        """Where any of those names stands, in order."""
        buffers = [None, pa.py_buffer(np.append(0, self.ends)), pa.py_buffer(self.data)]
        all_names = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(self), buffers)
        wanted = pa.array([name.encode("utf-8", "surrogateescape") for name in names], pa.large_binary())
        return np.flatnonzero(pc.is_in(all_names, wanted).to_numpy(zero_copy_only=False))

    def where(self, chosen: NDArray[np.bool_]) -> "Names":
        """Some of them, in the same order."""
        starts = np.append(0, self.ends[:-1])[chosen]
        ends = self.ends[chosen]
        data = [self.data[:0]]
        for at in range(0, len(ends), _AT_ONCE):
            few, stops = starts[at : at + _AT_ONCE], ends[at : at + _AT_ONCE]
            data.append(cut(self.data[few[0] :], few - few[0], stops - few[0]))
        return Names(np.concatenate(data), np.cumsum(ends - starts))


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


def evenly_spread(total: int, wanted: int | None) -> NDArray[np.int64]:
    """At most `wanted` indices below `total`, in order."""
    if wanted is None or wanted >= total:
        return np.arange(total)
    return np.arange(wanted) * total // wanted


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
    classes: Sequence[str] | None,
    names: Names | Iterable[str],
    labels: NDArray[np.int64],
    sizes: NDArray[np.int64] | Iterable[int],
) -> str:
    """SHA-256 in hex of what identifies a source without opening its images."""
    names = names if isinstance(names, Names) else Names.of(names)
    sizes = sizes if isinstance(sizes, np.ndarray) else np.fromiter(sizes, np.int64)
    words = Names.of(classes or ())
    digest = hashlib.sha256()
    for part in (words.data, words.ends, names.data, names.ends, labels, sizes):
        digest.update(f"{len(part)}\0".encode())
        digest.update(np.ascontiguousarray(part, part.dtype.newbyteorder("<")).data)
    return digest.hexdigest()


def full_fingerprint(source: Source) -> str:
    """Of `fingerprint` and of the size of every image, which takes a look at each file where images are files."""
    sizes = np.fromiter((source.size(index) for index in range(len(source))), "<i8", len(source))
    return hashlib.sha256(source.fingerprint().encode() + sizes.tobytes()).hexdigest()
