"""Pictures to begin with: PNG files that docs/draw_samples.py draws."""

from functools import cache
from importlib import resources

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from maekit.app.decoding import View
from maekit.data.transforms import EvalTransform

SAMPLES = ("boat", "fruit", "hills", "street")


def of(name: str, view: View) -> Tensor:
    """A sample as a model sees it, [C, H, W] uint8; of other channels than three, mixtures of the three. KeyError."""
    colours = torch.from_numpy(_picture(name)).permute(2, 0, 1).float()
    if view.channels != 3:
        share = torch.linspace(0, 2, view.channels) if view.channels > 1 else torch.tensor([1.0])
        mix = (1 - (share[:, None] - torch.arange(3)).abs()).clamp_min(0)
        colours = torch.einsum("km,mhw->khw", mix, colours)
    return EvalTransform(view.image_hw, view.crop_share)(colours.round().byte())


@cache
def _picture(name: str) -> NDArray[np.uint8]:
    if name not in SAMPLES:
        raise KeyError(name)
    with resources.files("maekit.app").joinpath("pictures", f"{name}.png").open("rb") as file:
        values = np.asarray(Image.open(file))
    grain = np.random.default_rng(7).normal(0, 2.5, (*values.shape[:2], 1))  # no photograph is without, no PNG packs it
    return (values + grain).clip(0, 255).astype(np.uint8)
