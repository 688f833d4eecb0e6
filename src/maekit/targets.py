"""What the hidden patches are compared with, and how.

Legend: N images, C channels, Q predicted patches, P values of a patch.
"""

from torch import Tensor
from torch.nn import functional as F

from maekit.config import TargetConfig
from maekit.patches import take_patches

VARIANCE_EPS = 1e-6
"""Added to a patch's variance before the root, as in the paper's released code."""


def make(config: TargetConfig, images: Tensor, unit: tuple[int, int], index: Tensor) -> Tensor:
    """Targets of the patches that are predicted.

    images: [N, C, H, W] standardised; index: [N, Q] int64 → [N, Q, P] float32.
    """
    patches = take_patches(images, unit, index).float()
    if config.pixels == "raw":
        return patches
    mean, std = statistics(patches)
    return (patches - mean) / std


def statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each patch over all its values (arXiv 2111.06377, section 3).

    patches: [..., P] → two of [..., 1]. The variance is the unbiased one.
    """
    mean = patches.mean(dim=-1, keepdim=True)
    std = (patches.var(dim=-1, keepdim=True) + VARIANCE_EPS).sqrt()
    return mean, std


def loss(config: TargetConfig, predicted: Tensor, target: Tensor) -> Tensor:
    """Mean error over the predicted patches alone: two of [N, Q, P] → a scalar, float32."""
    error = F.mse_loss if config.loss == "l2" else F.l1_loss
    return error(predicted.float(), target)
