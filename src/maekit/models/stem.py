"""A convolutional stem for ViTs, in place of one projection of whole patches (arXiv 2106.14881).

Legend: N images, C channels, H W pixels, L patches, D width.
"""

from math import log2
from typing import Any

from timm.layers import LayerNorm2d, PatchEmbed
from torch import Tensor, nn

from maekit.errors import ModelError


class ConvStem(PatchEmbed):  # type: ignore[misc]
    """4x4 convolutions of stride 2 down to the patch's size, doubling their channels up to D, then one of 1x1.

    The paper's are 3x3, with batch norm. These are 4x4 so that what a token sees lies around the middle of its patch,
    not around its first pixel, and have a norm over channels at each place: statistics over partly hidden images would
    not be those of whole ones. timm builds a ViT with it by `embed_layer=maekit.models.stem.ConvStem`. Raises
    ModelError where the patch is no square of 2, 4, 8 ... pixels, or D not divisible often enough.
    """

    def __init__(
        self, img_size: Any = 224, patch_size: Any = 16, in_chans: int = 3, embed_dim: int = 768, **more: Any
    ) -> None:
        super().__init__(img_size, patch_size, in_chans, embed_dim, **more)
        height, width = self.patch_size
        halvings = round(log2(height))
        if height != width or height != 2**halvings or halvings < 1:
            raise ModelError(f"model.stem conv: patches must be squares of 2, 4, 8 ... px, not {height}x{width}")
        least = 2 ** (halvings - 1)
        if embed_dim % least:
            raise ModelError(f"model.stem conv: the width must be a multiple of {least}, not {embed_dim}")
        layers: list[nn.Module] = []
        before = in_chans
        for number in range(halvings):
            after = embed_dim // 2 ** (halvings - 1 - number)
            layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False), LayerNorm2d(after), nn.GELU()]
            before = after
        self.proj = nn.Sequential(*layers, nn.Conv2d(before, before, 1))

    def of_visible(self, images: Tensor, masked: Tensor) -> Tensor:
        """Tokens [N, L, D] of images [N, C, H, W] whose hidden pixels are the mean, 0; masked: bool [N, L]."""
        height, width = self.patch_size
        units = masked.view(-1, 1, *self.grid_size)
        pixels = units.repeat_interleave(height, 2).repeat_interleave(width, 3)
        tokens: Tensor = self(images.masked_fill(pixels, 0.0))
        return tokens
