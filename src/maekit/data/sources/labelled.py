"""Two sources that belong together: one to learn from, one to be judged on."""

import logging
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from maekit.data.sources.labels import as_label, composed
from maekit.data.sources.source import Source
from maekit.data.sources.subset import SubsetSource, labels_of
from maekit.errors import DataError

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")

_log = logging.getLogger("maekit")


def labelled_pair(train: Source, val: Source) -> tuple[Source, Source]:
    """Both, with the training source's classes and label numbers.

    The one to be judged on may lack some of the classes. Where one of them has numbers only and the other names, as a
    list file beside a folder, the numbers stand for the names in their order, which is said. Raises DataError unless
    every image of both has a label, there are two classes or more, and all that are judged were learned.
    """
    for source in (train, val):
        if not len(source):
            raise DataError(f"{source.text}: holds no image")
        if source.classes is None:
            raise DataError(
                f"{source.text}: has no labels, which are needed here: a folder for each class, a list of paths and "
                "labels, or metadata.csv gives them"
            )
        missing = int((labels_of(source) < 0).sum())
        if missing:
            raise DataError(f"{source.text}: {missing} of {len(source)} images have no label, which is needed here")
    first, second = (source.classes or () for source in (train, val))
    if len(first) < 2:
        raise DataError(f"{train.text}: has one class ({first[0]}), where two are needed")
    if first == second:
        return train, val
    used = used_labels(val)
    numbers = matching_classes(second, first, used)
    if numbers is None:
        unknown = [name for name in second if composed(name) not in map(composed, first)]
        raise DataError(
            f"{train.text} and {val.text}: have different classes; in {val.text} alone: {', '.join(unknown[:5])}"
        )
    say_matching(val.text, second, train.text, first, used)
    return train, RelabelledSource(val, first, numbers)


def used_labels(source: Source) -> NDArray[np.int64]:
    """The labels that a source's images have, each once."""
    labels = np.unique(labels_of(source))
    return labels[labels >= 0]


def matching_classes(
    found: Sequence[str], known: Sequence[str], used: NDArray[np.int64] | None = None
) -> NDArray[np.int64] | None:
    """For each class of one source the number of the same in another, [found] int64; None where there is none for some.

    By name, accents in whatever form, where all names are there; else by number where one side has numbers only and
    the other names that are none (folders called 1, 2, 3 are not the numbers 0, 1, 2). used: the labels that images
    have, as a list of numbers has classes for those between as well; what is not used is -1.
    """
    if _by_name(found, known, used):
        number = {composed(name): label for label, name in enumerate(known)}
        return np.array([number.get(composed(name), -1) for name in found], dtype=np.int64)
    if is_numbered(found):
        fits = len(found) <= len(known) and not any(map(_NUMBER.fullmatch, known))
    else:
        fits = is_numbered(known) and len(found) == len(known) and not any(map(_NUMBER.fullmatch, found))
    return np.arange(len(found)) if fits else None


def _by_name(found: Sequence[str], known: Sequence[str], used: NDArray[np.int64] | None) -> bool:
    wanted = range(len(found)) if used is None or not is_numbered(found) else used.tolist()
    names, there = [composed(found[label]) for label in wanted], set(map(composed, known))
    return len(there) == len(known) and len(set(names)) == len(names) and there.issuperset(names)


def say_matching(
    text: str, found: Sequence[str], other: str, known: Sequence[str], used: NDArray[np.int64] | None = None
) -> None:
    """Warn where classes were matched by number, as `matching_classes` does: text has `found`, other `known`."""
    if _by_name(found, known, used):
        return
    if is_numbered(found):
        _log.warning("%s names no classes; its labels are taken as the numbers of those of %s", text, other)
    else:
        _log.warning("%s names no classes; the %d of %s are taken in their order", other, len(found), text)


def is_numbered(classes: Sequence[str]) -> bool:
    """Whether classes go by their numbers alone, as those of a list of numbers do."""
    return list(classes) == [str(number) for number in range(len(classes))]


class RelabelledSource(SubsetSource):
    """All of another source's images under the label numbers of `classes`."""

    def __init__(self, source: Source, classes: tuple[str, ...], numbers: NDArray[np.int64]) -> None:
        """numbers: for each class of the source its number among `classes`."""
        super().__init__(source, np.arange(len(source)))
        self.classes, self._numbers = classes, numbers

    def label(self, index: int) -> int | None:
        label = super().label(index)
        return None if label is None else as_label(self._numbers[label])

    def fingerprint(self) -> str:
        return self.source.fingerprint()
