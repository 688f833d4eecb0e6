"""Small Swins of both methods, what they are shown, and where it lies."""

import torch
from torch import Tensor, nn

from maekit import masking
from maekit.config import DecoderConfig, MaskConfig, ModelConfig
from maekit.models.family import grid_of
from maekit.models.swin import SWIN
from maekit.patches import split
from maekit.randomness import keys_tensor

V1, V2 = "swin_tiny_patch4_window7_224", "swinv2_tiny_window16_256"
ONE_IN_2X2, RANDOM = MaskConfig(kind="one_in_2x2", ratio=0.75), MaskConfig(kind="random", ratio=0.6)


def uniform(encoder: str = V1, size=64, **options) -> ModelConfig:
    options = {"width": 24, "window": 16, "decoder": DecoderConfig(kind="self", width=16, depth=1, heads=2), **options}
    return ModelConfig(encoder=encoder, image_size=size, **options)


def dense(encoder: str = V1, size=64, **options) -> ModelConfig:
    return uniform(encoder, size, swin_method="dense", **{"decoder": DecoderConfig(kind="linear"), **options})


def built(config: ModelConfig) -> tuple[nn.Module, nn.Module]:
    """Encoder and adapter with every parameter random: Swin V2's norms start at zero, which would hide mistakes."""
    torch.manual_seed(0)
    encoder = SWIN.build(config)
    adapter = SWIN.adapter(encoder, config)
    for module in (encoder, adapter):
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.3)
    return encoder, adapter


def batch(config: ModelConfig, encoder: nn.Module, images: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, keys, mask, visible units."""
    keys = keys_tensor(3, torch.arange(images))
    mask = RANDOM if SWIN.dense(config) else ONE_IN_2X2
    masked = masking.draw(mask, grid_of(SWIN, encoder, config), keys)
    pixels = torch.randn(images, config.channels, *config.image_hw, generator=torch.Generator().manual_seed(1))
    return pixels, keys, masked, split(masked)[0]


def over_pixels(units: Tensor, config: ModelConfig, encoder: nn.Module) -> Tensor:
    """Units [N, L] as pixels [N, 1, H, W]."""
    height, width = SWIN.unit(encoder, config)
    grid = units.view(len(units), 1, *grid_of(SWIN, encoder, config))
    return grid.repeat_interleave(height, 2).repeat_interleave(width, 3)
