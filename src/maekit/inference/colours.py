"""Patch features as colours: where two patches look alike to an encoder, they have the same colour.

Legend: T patches in raster order, D feature width.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from maekit.data.loader import Batch
from maekit.inference import picture
from maekit.models.encoder import ImageEncoder

_CAPTION = (
    "Right: the first three principal components of an image's patch features as red, green and blue. Where two "
    "patches of an image look alike to the encoder they have the same colour; colours of different images say nothing."
)


def colours(features: Tensor, grid: tuple[int, int]) -> NDArray[np.uint8]:
    """The first three principal components of an image's patch features as red, green and blue.

    features: [T, D]; grid: rows and columns, T of them. Each component is stretched over 0 to 255, a hundredth of the
    patches at either end clipped; its sign, which means nothing, is that of the largest loading. What has fewer than
    three components leaves the other colours at half. Returns [rows, columns, 3] uint8.
    """
    centred = (features - features.mean(dim=0)).double()
    _, strengths, directions = torch.linalg.svd(centred, full_matrices=False)
    directions = directions[:3]
    largest = directions.abs().argmax(dim=1, keepdim=True)
    components = centred @ (directions * directions.gather(1, largest).sign()).T
    low, high = (torch.quantile(components, share, dim=0) for share in (0.01, 0.99))
    real = (strengths[:3] > 1e-6 * strengths[0].clamp_min(1e-12)) & (high > low)
    shown = torch.full((len(features), 3), 0.5, dtype=torch.float64)
    shown[:, : components.shape[1]] = torch.where(real, (components - low) / (high - low), 0.5)
    return (shown.clamp(0, 1) * 255).round().byte().reshape(*grid, 3).numpy()


def coloured(model: ImageEncoder, image: Tensor) -> NDArray[np.uint8]:
    """The patch features of an image [C, H, W] as `colours`; with channel tokens, each channel's beside the others'."""
    features = model.features(image[None], "patches")[0].cpu()
    (height, width), planes = model.config.image_hw, model.config.planes
    rows = round((len(features) / planes * height / width) ** 0.5)
    shown = colours(features, (planes * rows, len(features) // (planes * rows)))
    return np.concatenate(np.split(shown, planes), axis=1)


def drawn(model: ImageEncoder, batch: Batch) -> Image.Image:
    """A picture with a row for each image of a batch: as the encoder is shown it, and its features as colours."""
    panels = []
    for image in batch.images:
        values = image if image.dtype == torch.uint8 else (image * 255).round().byte()
        small = coloured(model, image)
        factors = (-(-values.shape[1] // small.shape[0]), -(-values.shape[2] // small.shape[1]))
        large = small.repeat(factors[0], axis=0).repeat(factors[1], axis=1)
        panels.append((values.permute(1, 2, 0).numpy(), large))
    return picture.grid(panels, headings=("image", "patch features"), caption=_CAPTION)
