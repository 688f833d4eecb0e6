"""Several sources as one."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from maekit.data.sources.passed_over import PassedOver
from maekit.data.sources.source import Source


class JoinedSource:
    """The images of several sources, one source after the other, under their own names and without labels.

    Labels are left out because a number means another class in each source.
    """

    classes: tuple[str, ...] | None = None

    def __init__(self, sources: Sequence[Source]) -> None:
        self.text = ", ".join(source.text for source in sources)
        self.passed_over = sum((source.passed_over for source in sources), PassedOver())
        self._sources = list(sources)
        self._starts = np.cumsum([0, *map(len, sources)], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def path(self, index: int) -> str:
        source, within = self._find(index)
        return source.path(within)

    def label(self, index: int) -> int | None:  # noqa: ARG002 - the protocol's
        return None

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        source, within = self._find(index)
        return source.read(within)

    def size(self, index: int) -> int:
        source, within = self._find(index)
        return source.size(within)

    def fingerprint(self) -> str:
        return hashlib.sha256("".join(source.fingerprint() for source in self._sources).encode()).hexdigest()

    def _find(self, index: int) -> tuple[Source, int]:
        place = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._sources[place], index - int(self._starts[place])
