"""Where the images of a source lie whose files are not at hand, and which of them to look at where some will do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from maekit.config.data import CACHE_LIMIT, WINDOW
from maekit.data.sources.source import Source, evenly_spread

_LOOKED_INTO = 8  # files, where all would be too many


@dataclass(frozen=True)
class Space:
    """How much of what lies elsewhere is at hand, in GB of 1e9 bytes."""

    limit: float = CACHE_LIMIT
    """Of the cache folder."""
    window: float = WINDOW
    """Of files among which images are shuffled: three windows have to fit in the cache."""

    @staticmethod
    def within(limit: float) -> "Space":
        """For who reads images in their own order."""
        return Space(limit, min(WINDOW, limit / 3))


class Elsewhere(Protocol):
    """A file of which a copy can be fetched."""

    @property
    def size(self) -> int:
        """Bytes."""

    def copy(self, *, wait: bool = True) -> Any:
        """Fetch it where it is not here; without `wait`, unless another process is doing so."""


@dataclass(frozen=True, eq=False)
class Files:
    """F files that hold N images."""

    files: Sequence[Elsewhere]
    starts: NDArray[np.int64]
    """[F + 1]: each file's first image, and N."""
    window: int
    """Bytes of the files among which images are shuffled."""

    def of(self, indices: NDArray[np.int64]) -> "Files":
        """Where those images alone lie, at increasing indices."""
        return Files(self.files, np.searchsorted(indices, self.starts), self.window)


def files_of(source: Source) -> Files | None:
    """Of a source elsewhere; None of any other, whatever else it calls so."""
    files = getattr(source, "files", None)
    return files if isinstance(files, Files) else None


def some_of(source: Source, wanted: int | None) -> NDArray[np.int64]:
    """At most `wanted` of a source's images, evenly spread; in a few of its files where they do not fit a window."""
    files = files_of(source)
    if files is None or wanted is None or wanted >= len(source):
        return evenly_spread(len(source), wanted)
    used = np.flatnonzero(np.diff(files.starts))
    if sum(files.files[file].size for file in used.tolist()) <= files.window:  # all can be at hand at once
        return evenly_spread(len(source), wanted)
    looked = used[evenly_spread(len(used), min(wanted, _LOOKED_INTO))]
    inside = [np.arange(files.starts[file], files.starts[file + 1]) for file in looked]
    among = np.concatenate(inside)
    return among[evenly_spread(len(among), wanted)]
