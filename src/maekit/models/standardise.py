"""From stored pixels to what a model sees, and back.

Legend: N images, C channels, H W pixels.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from maekit.errors import ModelError


class Standardise(nn.Module):
    """Per-channel standardisation, on the images' device so that loaders can send bytes.

    mean, std: C values each, of pixels in [0, 1]. They are not parameters and not in the state dict: weights files
    keep them as metadata.
    """

    mean: Tensor
    std: Tensor
    __call__: Callable[..., Tensor]  # typed, which torch's is not

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        if len(mean) != len(std) or min(std) <= 0:
            raise ModelError(f"mean and std: need as many of each and std above 0, not {mean} and {std}")
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """images [N, C, H, W] uint8, or float in [0, 1] → standardised float32."""
        pixels = images.float()
        if images.dtype == torch.uint8:
            pixels = pixels / 255
        return (pixels - self.mean) / self.std

    def inverse(self, images: Tensor) -> Tensor:
        """Standardised → float in [0, 1], clipped."""
        return (images * self.std + self.mean).clamp(0, 1)

    def values(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(mean, std) as plain numbers."""
        return tuple(self.mean.flatten().tolist()), tuple(self.std.flatten().tolist())
