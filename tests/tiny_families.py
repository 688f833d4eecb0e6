"""Every family, size name and way of masking, as the smallest models on which the contract can be checked."""

import tiny
from maekit.config import MaskConfig, ModelConfig

RANDOM, ONE_IN_2X2 = MaskConfig(kind="random", ratio=0.6), MaskConfig(kind="one_in_2x2", ratio=0.75)
LINEAR = tiny.decoder_config(kind="linear")
WIDTHS = {
    "vit_tiny_patch16_224": 16, "vit_small_patch16_224": 16, "vit_base_patch16_224": 16, "vit_large_patch16_224": 16,
    "vit_huge_patch14_224": 16,
    "swin_tiny_patch4_window7_224": 24, "swin_small_patch4_window7_224": 24, "swin_base_patch4_window7_224": 32,
    "swin_large_patch4_window7_224": 48, "swinv2_tiny_window16_256": 24, "swinv2_base_window16_256": 32,
    "hiera_tiny_224": 16, "hiera_small_224": 16, "hiera_base_224": 16, "hiera_large_224": 16, "hiera_huge_224": 16,
    "hiera_small_abswin_256": 16,
    "swin_base_patch4_window12_384": 32, "swin_large_patch4_window12_384": 48, "swin_s3_tiny_224": 24,
    "swin_s3_small_224": 24, "swin_s3_base_224": 24, "swinv2_tiny_window8_256": 24, "swinv2_small_window8_256": 24,
    "swinv2_small_window16_256": 24, "swinv2_base_window8_256": 32, "swinv2_base_window12_192": 32,
    "swinv2_base_window12to16_192to256": 32, "swinv2_base_window12to24_192to384": 32, "swinv2_large_window12_192": 48,
    "swinv2_large_window12to16_192to256": 48, "swinv2_large_window12to24_192to384": 48, "hiera_base_plus_224": 16,
    "hiera_base_abswin_256": 16,
}  # fmt: skip
"""timm's names of every size, each with the width at which it is tested."""


def tiny_model(encoder: str, **changes) -> ModelConfig:
    """The encoder with all its blocks, narrow, on few mask units."""
    decoder = tiny.decoder_config(depth=1)
    common = {"encoder": encoder, "width": WIDTHS[encoder], "decoder": decoder}
    if encoder.startswith("vit"):
        return ModelConfig(**{**common, "heads": 2, "patch_size": 8, "image_size": 32, **changes})
    if encoder.startswith("swin"):
        return ModelConfig(**{**common, "window": 16, "image_size": 128, **changes})
    return ModelConfig(**{**common, "image_size": 128, **changes})


def mask_for(config: ModelConfig) -> MaskConfig:
    return ONE_IN_2X2 if config.encoder.startswith("swin") and config.swin_method == "uniform" else RANDOM


SIZES = {name: tiny_model(name) for name in WIDTHS}
VIT, SWIN, SWIN_V2, HIERA = (
    "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "swinv2_tiny_window16_256", "hiera_tiny_224",
)  # fmt: skip
KINDS = {
    "vit": SIZES[VIT],
    "vit, cross decoder": tiny_model(VIT, decoder=tiny.decoder_config(kind="cross")),
    "vit, oblong, 5 channels": tiny_model(VIT, image_size=(32, 48), channels=5),
    "vit, registers, layer scale": tiny_model(VIT, register_tokens=2, layer_scale=1e-5),
    "vit, rotary": tiny_model(VIT, positions="rotary"),
    "vit, rotary, registers alone, layer scale, oblong": tiny_model(
        VIT, positions="rotary", class_token=False, register_tokens=2, layer_scale=1e-5, image_size=(32, 48)
    ),
    "vit, convolutional stem": tiny_model(VIT, stem="conv"),
    "vit, convolutional stem, oblong, 5 channels, registers, 4 px": tiny_model(
        VIT, stem="conv", image_size=(16, 24), patch_size=4, channels=5, register_tokens=2
    ),
    "vit, channel tokens": tiny_model(VIT, channel_tokens=True, image_size=(16, 24)),
    "vit, channel tokens, 5 channels, registers, cross decoder": tiny_model(
        VIT,
        channel_tokens=True,
        channels=5,
        register_tokens=2,
        image_size=16,
        decoder=tiny.decoder_config(kind="cross"),
    ),
    "swin uniform": SIZES[SWIN],
    "swin uniform, oblong, 1 channel": tiny_model(SWIN, image_size=(64, 128), channels=1),
    "swin v2 uniform": SIZES[SWIN_V2],
    "swin dense": tiny_model(SWIN, swin_method="dense", decoder=LINEAR),
    "swin dense, oblong, 4 channels": tiny_model(
        SWIN, swin_method="dense", decoder=LINEAR, image_size=(64, 128), channels=4
    ),
    "swin v2 dense": tiny_model(SWIN_V2, swin_method="dense", decoder=LINEAR),
    "hiera": SIZES[HIERA],
    "hiera, whole units": tiny_model(HIERA, pool_units=True),
    "hiera, layer scale": tiny_model(HIERA, layer_scale=1e-5),
    "hiera, cross decoder": tiny_model(HIERA, decoder=tiny.decoder_config(kind="cross")),
    "hiera, oblong, 1 channel": tiny_model(HIERA, image_size=(96, 128), channels=1),
}
PUBLISHED = {
    "vit-tiny": (16, 14, 192),
    "vit-small": (16, 14, 384),
    "vit-small-crossmae": (16, 14, 384),
    "vit-base": (16, 14, 768),
    "vit-large": (16, 14, 1024),
    "vit-huge": (14, 16, 1280),
    "vit-tiny-flyegle": (16, 14, 192),
    "vit-base-flyegle": (16, 14, 768),
    "swin-tiny": (16, 16, 384),
    "swin-base": (16, 16, 512),
    "swin-tiny-simmim": (32, 6, 768),
    "swin-base-simmim": (32, 6, 1024),
    "swin-base-simmim-800": (32, 6, 1024),
    "hiera-tiny": (32, 7, 768),
    "hiera-base": (32, 7, 768),
}
"""Presets at ImageNet's sizes: pixels of a mask unit's side, units in a row, width of the latents."""
