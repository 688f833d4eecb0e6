"""Two sources that belong together: one to learn from, one to be judged on."""

import numpy as np
from numpy.typing import NDArray

from maekit.data.sources.labels import as_label
from maekit.data.sources.source import Source
from maekit.data.sources.subset import labels_of
from maekit.errors import DataError


def labelled_pair(train: Source, val: Source) -> tuple[Source, Source]:
    """Both, with the training source's classes and label numbers.

    The one to be judged on may lack some of the classes. Raises DataError unless every image of both has a label, there
    are two classes or more, and all that are judged were learned.
    """
    for source in (train, val):
        if not len(source):
            raise DataError(f"{source.text}: holds no image")
        if source.classes is None:
            raise DataError(f"{source.text}: has no labels, which are needed here")
        missing = int((labels_of(source) < 0).sum())
        if missing:
            raise DataError(f"{source.text}: {missing} of {len(source)} images have no label, which is needed here")
    first, second = (source.classes or () for source in (train, val))
    unknown = [name for name in second if name not in first]
    if unknown:
        raise DataError(
            f"{train.text} and {val.text}: have different classes; in {val.text} alone: {', '.join(unknown[:5])}"
        )
    if len(first) < 2:
        raise DataError(f"{train.text}: has one class ({first[0]}), where two are needed")
    return train, val if first == second else RelabelledSource(val, first)


class RelabelledSource:
    """Another source's images under the label numbers of `classes`, which hold all of its own."""

    def __init__(self, source: Source, classes: tuple[str, ...]) -> None:
        self._source, self.text = source, source.text
        self.classes: tuple[str, ...] | None = classes
        self._numbers = np.array([classes.index(name) for name in source.classes or ()], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._source)

    def path(self, index: int) -> str:
        return self._source.path(index)

    def label(self, index: int) -> int | None:
        label = self._source.label(index)
        return None if label is None else as_label(self._numbers[label])

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        return self._source.read(index)

    def fingerprint(self) -> str:
        return self._source.fingerprint()
