"""What is predicted in place of hidden patches, how its predictions are painted, and how far off they are.

Legend: N images, C channels, H W pixels, L patches, V visible, Q predicted patches, P values predicted for a patch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from maekit import parts
from maekit.config import TargetConfig
from maekit.errors import ModelError
from maekit.patches import split, take_patches

VARIANCE_EPS = 1e-6
"""Added to a patch's variance before the root, as in the paper's released code."""

_APART = 10_000  # patches, from one channel to the next

Statistics = Literal["original", "visible"]


@dataclass(frozen=True)
class Geometry:
    """The images that a target is made of, and the patches they are cut into.

    image_hw: height and width in pixels; patch: those of a patch; grid: rows and columns of patches; mean, std: per
    channel, by which images in [0, 1] were standardised. planes: with channel tokens, the channels of an image, which
    lie one below the other in an image of one channel; else 1.
    """

    image_hw: tuple[int, int]
    patch: tuple[int, int]
    grid: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    planes: int = 1

    def seen(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] as they are cut into patches: [N, channels, *image_hw], a view."""
        return images.reshape(len(images), self.channels, *self.image_hw)


class Target(Protocol):
    """What hidden patches are compared with. A user's own is made as `Own(geometry)`.

    It may hold modules, which are neither trained nor saved, and has to take images on whatever device they are. One
    that can be looked at has a method `paint` too, as `Pixels` has; pictures of one without are left out.
    """

    width: int
    """P, the values that are predicted for a patch."""

    def make(self, images: Tensor, index: Tensor) -> Tensor:
        """images [N, C, H, W] standardised, index [N, Q] int64 → what the patches `index` are compared with, [N, Q, P].

        Called without gradient.
        """


Error = Callable[[Tensor, Tensor], Tensor]
"""Predicted and target, two of [N, Q, P] float32 → a scalar."""


def build(config: TargetConfig, geometry: Geometry) -> Target:
    """The target of a config. Raises ModelError where patches cannot be normalised, UsageError for a failing part."""
    if config.kind not in ("raw", "normalised"):
        own: Target = parts.find("target", config.kind).make(geometry)
        return own
    return Pixels(geometry, normalised=config.kind == "normalised")


def error_of(config: TargetConfig) -> Error:
    """How far predictions are off, by the config's name for it; see `Error`."""
    own = {"l2": F.mse_loss, "l1": F.l1_loss}
    return own[config.loss] if config.loss in own else parts.find("loss", config.loss).bound()


class Pixels:
    """Standardised pixels, as they are or normalised within their patch (arXiv 2111.06377, section 3)."""

    def __init__(self, geometry: Geometry, *, normalised: bool) -> None:
        self._geometry, self.normalised = geometry, normalised
        self.width = geometry.patch[0] * geometry.patch[1] * geometry.channels
        if normalised and self.width == 1:
            raise ModelError("target.kind: a patch of one value has no deviation to normalise by; take raw")

    def make(self, images: Tensor, index: Tensor) -> Tensor:
        """See `Target.make`; float32."""
        patches = take_patches(images, self._geometry.patch, index).float()
        if not self.normalised:
            return patches
        mean, std = statistics(patches)
        return (patches - mean) / std

    def paint(self, predicted: Tensor, images: Tensor, masked: Tensor, index: Tensor, source: Statistics) -> Tensor:
        """Standardised pixels of the predicted patches: [N, Q, P] → [N, Q, P].

        images: [N, C, H, W] standardised; masked: bool [N, L], of patches. source: where the mean and spread of
        normalised patches come from, "original", a leak, or "visible", their visible neighbours by inverse squared
        distance.
        """
        if not self.normalised:
            return predicted
        patch, columns = self._geometry.patch, self._geometry.grid[1]
        if source == "original":
            mean, std = statistics(take_patches(images, patch, index))
            return predicted * std + mean
        visible, _ = split(masked)
        mean, std = statistics(take_patches(images, patch, visible))
        number = torch.arange(masked.shape[1], device=images.device)
        away = _APART * (number * self._geometry.planes // len(number))  # other channels are no neighbours
        places = torch.stack([number // columns + away, number % columns], dim=1).float()
        weights = torch.cdist(places[index], places[visible]).pow(-2)  # [N, Q, V]
        weights = weights / weights.sum(dim=2, keepdim=True)
        return predicted * (weights @ std) + weights @ mean


def statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each patch over all its values (arXiv 2111.06377, section 3).

    patches: [..., P] → two of [..., 1]. The variance is the unbiased one.
    """
    mean = patches.mean(dim=-1, keepdim=True)
    std = (patches.var(dim=-1, keepdim=True) + VARIANCE_EPS).sqrt()
    return mean, std
