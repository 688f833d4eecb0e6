"""Pretraining presets for Swin and Hiera. Each docstring says where the numbers are from and what to expect."""

from dataclasses import replace

from maekit.config import DecoderConfig, MaskConfig, ModelConfig, PretrainConfig, TargetConfig
from maekit.presets.pretrain import by_name, mae_recipe


def _uniform(name: str, encoder: str, micro_batch_limit: int) -> PretrainConfig:
    """UM-MAE's recipe for Swin (arXiv 2205.10063 and its released script), one for all sizes: MAE's but for these."""
    mae = mae_recipe(name, encoder, micro_batch_limit)
    return replace(
        mae,
        model=ModelConfig(
            encoder=encoder,
            image_size=256,
            window=16,
            swin_method="uniform",
            secondary_ratio=0.25,
            decoder=DecoderConfig(kind="self", width=512, depth=2, heads=16),
        ),
        mask=MaskConfig(kind="one_in_2x2", ratio=0.75),
        schedule=replace(mae.schedule, epochs=200, warmup_epochs=10),
    )


def swin_tiny() -> PretrainConfig:
    """Swin-T at 256 px, one visible patch in 2x2: UM-MAE's recipe.

    Source: arXiv 2205.10063: a decoder of 2 blocks, a quarter of the visible units replaced by a token, windows of 8 on
    the packed image, which are windows of 16 for whole images. Cost: 6.3 GFLOP forward an image. Expected: 82.04
    fine-tuned by `finetune swin-tiny` (256 px, 100 epochs, layer decay .85), with a network that computes its position
    biases of offsets, where timm's has tables; pretraining took 25 h. Measured: not on ImageNet.
    """
    return _uniform("swin-tiny", "swin_tiny_patch4_window7_224", 256)


def swin_base() -> PretrainConfig:
    """Swin-B at 256 px, one visible patch in 2x2: UM-MAE's recipe.

    Source: arXiv 2205.10063, which has Swin-T and Swin-L; the recipe is theirs. Cost: 13.5 GFLOP forward an image.
    Expected: nothing published at this size. Measured: not on ImageNet.
    """
    return _uniform("swin-base", "swin_base_patch4_window7_224", 128)


def _simmim(name: str, encoder: str, epochs: float, micro_batch_limit: int) -> PretrainConfig:
    """SimMIM's recipe for Swin (arXiv 2111.09886, section 4.1, and its released configs); flips and decay are MAE's."""
    mae = mae_recipe(name, encoder, micro_batch_limit)
    return replace(
        mae,
        model=ModelConfig(
            encoder=encoder, image_size=192, window=6, swin_method="dense", decoder=DecoderConfig(kind="linear")
        ),
        mask=MaskConfig(kind="random", ratio=0.6),
        target=TargetConfig(kind="raw", loss="l1"),
        augment=replace(mae.augment, scale=(0.67, 1.0), interpolation="bilinear"),
        optimizer=replace(mae.optimizer, base_lr=1e-4, betas=(0.9, 0.999), clip=5.0),
        schedule=replace(mae.schedule, epochs=epochs, recipe_batch_size=2048, warmup_epochs=10, min_lr=4e-5),
    )


def swin_tiny_simmim() -> PretrainConfig:
    """Swin-T at 192 px with mask tokens through the whole network: SimMIM's recipe, 200 epochs.

    Source: arXiv 2111.09886, which starts at Swin-B. Cost: 6.6 GFLOP forward an image. Expected: nothing published in
    this setting. The 82.20 in UM-MAE's comparison (arXiv 2205.10063) is of 200 epochs at 256 px with windows of 16,
    16-px mask units and another decoder. Measured: not on ImageNet.
    """
    return _simmim("swin-tiny-simmim", "swin_tiny_patch4_window7_224", 200, 256)


def swin_base_simmim() -> PretrainConfig:
    """Swin-B at 192 px with mask tokens through the whole network: SimMIM's recipe, 100 epochs.

    Source: arXiv 2111.09886 and its released config: 32-px mask units, ratio .6, window 6, L1 on raw pixels, a linear
    head. Cost: 22.7 GFLOP forward an image. Expected: 83.5 fine-tuned by `finetune swin-base-simmim` at 224 px with
    windows of 7, 82.8 at 192 px with windows of 6. Measured: not on ImageNet.
    """
    return _simmim("swin-base-simmim", "swin_base_patch4_window7_224", 100, 128)


def swin_base_simmim_800() -> PretrainConfig:
    """Swin-B at 192 px: SimMIM's recipe for 800 epochs, lr 4e-4, a tenth of it from epoch 700 on.

    Source: arXiv 2111.09886 and its released config; the rest is `swin-base-simmim`'s. Cost: 22.7 GFLOP forward an
    image. Expected: 84.0 fine-tuned by `finetune swin-base-simmim-800` at 224 px with windows of 7. Measured: not on
    ImageNet.
    """
    shorter = _simmim("swin-base-simmim-800", "swin_base_patch4_window7_224", 800, 128)
    return replace(
        shorter,
        optimizer=replace(shorter.optimizer, base_lr=5e-5),
        schedule=replace(shorter.schedule, course="step", milestones=(700,), gamma=0.1, min_lr=0.0),
    )


def _hiera(name: str, encoder: str, micro_batch_limit: int) -> PretrainConfig:
    """Hiera's mask and decoder (arXiv 2306.00989, section 3.2); schedule and the rest are MAE's (arXiv 2111.06377)."""
    return replace(mae_recipe(name, encoder, micro_batch_limit), mask=MaskConfig(kind="random", ratio=0.6))


def hiera_tiny() -> PretrainConfig:
    """Hiera-T at 224 px with 32-px mask units.

    Source: ratio .6, units and multi-scale fusion of arXiv 2306.00989, 16-px patches predicted as there;
    the schedule of MAE. Cost: 15.7 GFLOP forward an image. Expected: the paper reports 82.8
    fine-tuned in its own recipe. Measured: not on ImageNet.
    """
    return _hiera("hiera-tiny", "hiera_tiny_224", 256)


def hiera_base() -> PretrainConfig:
    """Hiera-B at 224 px with 32-px mask units.

    Source: ratio .6, units and multi-scale fusion of arXiv 2306.00989, 16-px patches predicted as there;
    the schedule of MAE. Cost: 19.9 GFLOP forward an image. Expected: the paper reports 84.5
    fine-tuned in its own recipe. Measured: not on ImageNet.
    """
    return _hiera("hiera-base", "hiera_base_224", 256)


PRESETS = by_name(
    swin_tiny, swin_base, swin_tiny_simmim, swin_base_simmim, swin_base_simmim_800, hiera_tiny, hiera_base
)
