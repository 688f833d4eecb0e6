"""Part of a source, as a source."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from maekit.data.shared import shared
from maekit.data.sources.elsewhere import files_of
from maekit.data.sources.labels import LabelledImages
from maekit.data.sources.source import Source
from maekit.errors import DataError
from maekit.randomness import numpy_generator

_FEW = 0x666577  # keeps these draws apart from others with the same seed


class SubsetSource:
    """The images of another source at some indices, under their own names."""

    def __init__(self, source: Source, indices: NDArray[np.int64]) -> None:
        self.source, self.indices = source, shared(indices)
        self.text, self.classes, self.passed_over = source.text, source.classes, source.passed_over
        files = files_of(source)
        self.files = None if files is None else files.of(self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def path(self, index: int) -> str:
        return self.source.path(int(self.indices[index]))

    def label(self, index: int) -> int | None:
        return self.source.label(int(self.indices[index]))

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        return self.source.read(int(self.indices[index]))

    def size(self, index: int) -> int:
        return self.source.size(int(self.indices[index]))

    def fingerprint(self) -> str:
        return hashlib.sha256(self.source.fingerprint().encode() + self.indices.tobytes()).hexdigest()


def labels_of(source: Source) -> NDArray[np.int64]:
    """All labels of a source, -1 where there is none."""
    if isinstance(source, LabelledImages):
        return source.all_labels()
    if type(source) is SubsetSource:
        return labels_of(source.source)[source.indices]
    labels = (source.label(index) for index in range(len(source)))
    return np.array([-1 if label is None else label for label in labels], dtype=np.int64)


def few_per_class(source: Source, count: int, seed: int) -> SubsetSource:
    """`count` images of each class, drawn by the seed. DataError where a class has fewer, or there are no labels."""
    if source.classes is None:
        raise DataError(f"{source.text}: has no labels, so images per class cannot be drawn")
    labels = labels_of(source)
    chosen = []
    for number, name in enumerate(source.classes):
        members = np.flatnonzero(labels == number)
        if len(members) < count:
            raise DataError(f"{source.text}: class {name} has {len(members)} images, {count} per class were asked for")
        chosen.append(numpy_generator(_FEW, seed, number).permutation(members)[:count])
    return SubsetSource(source, np.sort(np.concatenate(chosen)))
