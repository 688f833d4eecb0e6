"""scikit-learn's 1,797 scanned digits of 8x8 pixels, embedded, so that a demo and tests need no download."""

import numpy as np
from numpy.typing import NDArray

from maekit.data.sources.labels import LabelledImages
from maekit.data.sources.passed_over import PassedOver
from maekit.data.sources.source import fingerprint
from maekit.errors import DataError

PARTS = ("train", "test", "")


class DigitsSource(LabelledImages):
    """`digits:train` (1,437 images), `digits:test` (360) or `digits:` (all), in scikit-learn's order.

    The split is scikit-learn's `train_test_split` of all images, stratified by digit, with random_state 0. Values of
    0 to 16 are scaled to 0 to 255.
    """

    def __init__(self, text: str, part: str) -> None:
        if part not in PARTS:
            raise DataError(f"{text}: no such part of the digits; there are digits:train, digits:test and digits:")
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        self.text, self.passed_over = text, PassedOver()
        digits = load_digits()
        numbers = np.arange(len(digits.target))
        train, test = train_test_split(numbers, test_size=360, stratify=digits.target, random_state=0)
        self._numbers = {"train": np.sort(train), "test": np.sort(test), "": numbers}[part]
        self._images = ((digits.images[self._numbers].astype(np.uint16) * 255 + 8) // 16).astype(np.uint8)
        self._labels = digits.target[self._numbers].astype(np.int64)
        self.classes = tuple(str(digit) for digit in range(10))

    def path(self, index: int) -> str:
        return f"digits:{self._numbers[index]}"

    def read(self, index: int) -> NDArray[np.uint8]:
        return self._images[index]

    def size(self, index: int) -> int:
        return int(self.read(index).nbytes)

    def fingerprint(self) -> str:
        names = (self.path(index) for index in range(len(self)))
        return fingerprint(self.classes, names, self._labels, [self._images[0].nbytes] * len(self))
