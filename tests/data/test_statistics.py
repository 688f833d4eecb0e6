"""Mean and standard deviation: measured as plain NumPy measures them, and the right ones for the option."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maekit.config import DataConfig
from maekit.data.sources import open_source
from maekit.data.sources.source import evenly_spread
from maekit.data.statistics import standardisation, statistics
from maekit.errors import DataError, UsageError


def test_measured_as_numpy_does() -> None:
    source = open_source("digits:train")
    pixels = np.stack([source.read(index) for index in range(len(source))]) / 255
    for workers in (0, 1):
        mean, std = statistics(source, 1, workers=workers)
        assert mean[0] == pytest.approx(pixels.mean(), abs=1e-6)
        assert std[0] == pytest.approx(pixels.std(), abs=1e-6)


def test_every_image_weighs_the_same(tmp_path: Path) -> None:
    Image.new("RGB", (100, 100), (0, 51, 255)).save(tmp_path / "large.png")
    Image.new("RGB", (5, 5), (255, 51, 255)).save(tmp_path / "small.png")
    (tmp_path / "broken.png").write_text("")
    mean, std = statistics(open_source(str(tmp_path)), 3, workers=0)
    assert mean == pytest.approx((0.5, 0.2, 1.0))
    assert std == pytest.approx((0.5, 1 / 255, 1 / 255))  # never zero: it is divided by


def test_options() -> None:
    source = open_source("digits:test")
    assert standardisation(DataConfig(), source, 3)[0] == (0.485, 0.456, 0.406)
    assert standardisation(DataConfig(), source, 1)[0] == pytest.approx((0.449,))
    assert standardisation(DataConfig(normalise="half"), source, 2) == ((0.5, 0.5), (0.5, 0.5))
    measured = DataConfig(normalise="measured", workers=0)
    assert standardisation(measured, source, 1) == statistics(source, 1, workers=0)
    given = DataConfig(normalise="given", mean=(0.1,), std=(0.2,))
    assert standardisation(given, source, 1) == ((0.1,), (0.2,))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (DataConfig(), "--normalise measured"),
        (DataConfig(normalise="given", std=(1.0, 1.0)), "--mean is not"),
        (DataConfig(normalise="given", mean=(0.1,), std=(1.0, 1.0)), "--mean: 1 numbers for images of 2 channels"),
        (DataConfig(normalise="given", mean=(0.1, 0.2), std=(1.0, 0.0)), "--std: has to be above 0"),
    ],
)
def test_what_does_not_fit_the_channels_is_refused(config: DataConfig, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        standardisation(config, open_source("digits:test"), 2)


def test_nothing_readable(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("")
    with pytest.raises(DataError, match="no image can be read"):
        statistics(open_source(str(tmp_path)), 3, workers=0)


def test_evenly_spread() -> None:
    assert evenly_spread(10, 4).tolist() == [0, 2, 5, 7]
    assert evenly_spread(3, 4).tolist() == evenly_spread(3, None).tolist() == [0, 1, 2]
