"""Labels as sources keep them: int64, -1 for none, with the classes' names in label order."""

from collections.abc import Sequence
from typing import Any
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from maekit.data.shared import shared
from maekit.errors import DataError

MOST_CLASSES = 1_000_000  # a larger number is no class; and each class below it would need a name

Labels = NDArray[np.int64]
Classes = tuple[str, ...] | None
Codes = NDArray[np.integer[Any]] | slice
EACH = slice(None)
"""Where each image has a value of its own."""


def no_labels(count: int) -> tuple[Labels, Classes]:
    """Of a source that has none."""
    return shared(np.full(count, -1, dtype=np.int64)), None


def as_label(value: int) -> int | None:
    """A kept label as the protocol gives it."""
    return int(value) if value >= 0 else None


class LabelledImages:
    """Sources that keep the labels of all their images, one each, and do not know the images' sizes unless they say."""

    classes: Classes
    _labels: Labels

    def __len__(self) -> int:
        return len(self._labels)

    def label(self, index: int) -> int | None:
        return as_label(self._labels[index])

    def all_labels(self) -> Labels:
        """All of them, -1 for none."""
        return self._labels

    def size(self, index: int) -> int:  # noqa: ARG002 - the protocol's
        return -1  # to know it, it would have to be read


def found_labels(
    text: str, values: Sequence[Any], names: Sequence[str] | None = None, codes: Codes = EACH
) -> tuple[Labels, Classes]:
    """Whatever a source has for labels, None for none: words as soon as one of them is a word, else numbers.

    codes: the place of each image's label among the values, where many images have few different ones. Words have no
    names.
    """
    if any(isinstance(value, str) for value in values):
        labels, classes = string_labels([None if value is None else str(value) for value in values])
        return shared(labels[codes]), classes
    return integer_labels(text, [-1 if value is None else value for value in values], names, codes)


def integer_labels(
    text: str, numbers: Sequence[int] | Labels, names: Sequence[str] | None = None, codes: Codes = EACH
) -> tuple[Labels, Classes]:
    """Numbers that are labels already, negative ones being none; without names, the classes go by number.

    codes: as of `found_labels`. Raises DataError, naming the source by its text, for what is no integer, and for a
    label beyond the names, or beyond reason.
    """
    labels = shared(np.maximum(_integers(text, numbers), -1)[codes])
    largest = int(labels.max(initial=-1))
    if largest >= (MOST_CLASSES if names is None else len(names)):
        known = f"{len(names)} classes are named" if names is not None else f"{MOST_CLASSES - 1:,} is the largest"
        raise DataError(f"{text}: image {int(labels.argmax())} has label {largest}, but {known}")
    if largest < 0:
        return labels, None
    return labels, tuple(map(composed, names if names is not None else map(str, range(largest + 1))))


def _integers(text: str, numbers: Sequence[int] | Labels) -> Labels:
    try:
        values = np.asarray(numbers)
    except ValueError:  # lists of different lengths
        raise DataError(f"{text}: a label is a list; labels are integers or strings") from None
    if not values.size:
        return values.astype(np.int64)
    if values.ndim != 1 or values.dtype.kind not in "biu":
        odd = next((v for v in numbers if isinstance(v, bool) or not isinstance(v, int | np.integer)), None)
        what = f"an integer of more than 64 bits ({max(numbers, key=abs)})" if odd is None else repr(odd)
        raise DataError(f"{text}: a label is {what:.60}; labels are integers or strings, below {MOST_CLASSES:,}")
    if values.dtype == np.uint64:
        values = np.minimum(values, np.uint64(np.iinfo(np.int64).max))
    return values.astype(np.int64)


def string_labels(words: Sequence[str | None]) -> tuple[Labels, Classes]:
    """Words that become classes, composed and in sorted order; None is no label."""
    names = {word: composed(word) for word in set(words) if word is not None}
    classes = sorted(set(names.values()))
    number = {name: label for label, name in enumerate(classes)}
    labels = (-1 if word is None else number[names[word]] for word in words)
    return shared(np.fromiter(labels, dtype=np.int64, count=len(words))), tuple(classes) or None


def composed(name: str) -> str:
    """A class's name in Unicode's composed form (NFC): file systems and programs differ in how they write an accent."""
    return normalize("NFC", name)
