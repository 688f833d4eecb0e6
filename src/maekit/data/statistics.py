"""Per-channel mean and spread of a source's pixels, and which of them standardise the model's input."""

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maekit.config import DataConfig
from maekit.config.beforehand import check_normalise, given_standardisation
from maekit.data.decode import Range, decode
from maekit.data.ranges import known_range
from maekit.data.sources import Source
from maekit.data.sources.elsewhere import some_of
from maekit.data.workers import map_in_order, worker_count
from maekit.errors import DataError, ImageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MEASURED_IMAGES = 10_000
"""Images that are measured at most, evenly spread over the source."""
_LEAST_STD = 1 / 255  # a channel of one value still has to be divided by something

Channels = tuple[float, ...]


def statistics(
    source: Source, channels: int, *, workers: int | None = None, value_range: Range | None = None
) -> tuple[Channels, Channels]:
    """Mean and standard deviation per channel, of pixels in [0, 1], in which every image weighs the same.

    Images that cannot be read are left out. Raises DataError where none can.
    """
    indices = some_of(source, MEASURED_IMAGES).tolist()
    measure = partial(_moments_of, source, channels, value_range)
    measured = [found for found in map_in_order(measure, indices, worker_count(workers)) if found is not None]
    if not measured:
        raise DataError(f"{source.text}: no image can be read, so there is nothing to measure")
    return mean_and_std(np.array(measured))


def standardisation(config: DataConfig, source: Source, channels: int) -> tuple[Channels, Channels]:
    """Mean and standard deviation per channel that `config.normalise` stands for.

    imagenet on one channel takes the average of its three. Raises UsageError where they do not fit the channels.
    """
    if config.normalise == "half":
        return (0.5,) * channels, (0.5,) * channels
    if config.normalise == "measured":
        return statistics(source, channels, workers=config.workers, value_range=known_range(config.range))
    if config.normalise == "given":
        return given_standardisation(config, channels)
    check_normalise(config, channels)
    if channels == 3:
        return IMAGENET_MEAN, IMAGENET_STD
    return (sum(IMAGENET_MEAN) / 3,), (sum(IMAGENET_STD) / 3,)


def moments(image: Tensor) -> NDArray[np.float64]:
    """Per-channel mean and mean square, [2, C], of an image [C, H, W], uint8 or float32 in [0, 1]."""
    values = image.flatten(1)
    values = values.float() if values.is_floating_point() else values.float() / 255
    return torch.stack([values.mean(1), values.square().mean(1)]).double().numpy()


def mean_and_std(measured: NDArray[np.float64]) -> tuple[Channels, Channels]:
    """measured: moments of images, [N, 2, C]. Returns C means and C standard deviations."""
    mean, square = measured.mean(axis=0)
    std = np.sqrt(np.maximum(square - mean**2, _LEAST_STD**2))
    return tuple(mean.tolist()), tuple(std.tolist())


def _moments_of(source: Source, channels: int, value_range: Range | None, index: int) -> NDArray[np.float64] | None:
    """None where the image cannot be read."""
    try:
        return moments(decode(source.read(index), channels, value_range=value_range))
    except ImageError:
        return None
