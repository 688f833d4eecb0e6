"""What pretraining is after: what is hidden, what is predicted in its place, and how far off that is.

A model holds its objective, so that training, validation and pictures cannot disagree about it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from maekit import masking, targets
from maekit.config import MaskConfig, TargetConfig
from maekit.errors import MaekitError, UsageError
from maekit.masking import Mask
from maekit.targets import Error, Geometry, Target


@dataclass(frozen=True)
class Objective:
    """mask: draws what is hidden. target: makes what is predicted. error: compares the two."""

    mask: Mask
    target: Target
    error: Error

    def loss(self, images: Tensor, predicted: Tensor, index: Tensor) -> Tensor:
        """images [N, C, H, W] standardised, predicted [N, Q, P], index [N, Q] int64, of which patches → a scalar."""
        with torch.no_grad():
            target = self.target.make(images, index).float()
        return self.error(predicted.float(), target)


def build(mask: MaskConfig, target: TargetConfig, units: tuple[int, int], geometry: Geometry) -> Objective:
    """The objective of a config. units: rows and columns of the mask's units, which may be several patches each.

    Raises what `masking.build` and `targets.build` raise.
    """
    return Objective(masking.build(mask, units), targets.build(target, geometry), targets.error_of(target))


def check(objective: Objective, target: TargetConfig, geometry: Geometry) -> None:
    """Try an objective on two images of noise, before anything is trained.

    Raises UsageError, one line, where a target or loss of the user's does not keep to `Target` and `Error`.
    """
    noise = torch.Generator().manual_seed(0)
    images = torch.randn(2, geometry.channels, *geometry.image_hw, generator=noise)
    index = torch.arange(min(3, geometry.grid[0] * geometry.grid[1])).expand(2, -1)
    expected = (*index.shape, objective.target.width)
    what = f"target {target.kind}"
    try:
        made = objective.target.make(images, index)
        if tuple(made.shape) != expected or not made.is_floating_point():
            raise UsageError(
                f"{what}: makes {made.dtype} {list(made.shape)} for {index.shape[1]} patches of 2 images; its width is "
                f"{objective.target.width}, so it has to be floats {list(expected)}"
            )
        what = f"loss {target.loss}"
        loss = objective.error(torch.randn(expected, generator=noise, requires_grad=True), made.float())
        if loss.ndim or not loss.requires_grad:
            raise UsageError(
                f"{what}: gives {list(loss.shape)}; it has to be one number that depends on the predictions"
            )
    except MaekitError:
        raise
    except Exception as error:
        raise UsageError(f"{what}: fails on images of noise ({type(error).__name__}: {error})") from error
