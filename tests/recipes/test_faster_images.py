"""What a run that waits for its images advises: what fits them."""

from types import SimpleNamespace

import pytest

from maekit.config import DataConfig
from maekit.recipes.training import Training


class Source:
    def __init__(self, size):
        self._size = size

    def __len__(self):
        return 3

    def size(self, index):
        assert index == 1
        return self._size


@pytest.mark.parametrize(
    ("source", "workers", "size", "advice"),
    [
        ("photos", 0, 2_000_000, "--workers 1 or more, or `maekit pack photos --out FOLDER` once, and train on that"),
        ("photos", 2, 3_000, "more --workers, where there are cores"),
        ("photos", 2, -1, "more --workers, where there are cores"),
        ("digits:train", 0, 64, ""),
    ],
)
def test_advice_fits_the_images(source, workers, size, advice):
    run = SimpleNamespace(config=SimpleNamespace(data=DataConfig(source=source, workers=workers)), source=Source(size))
    assert Training._faster_images(run) == advice
