"""Pretraining presets for ViTs. Each docstring says where the numbers are from, what they cost and what to expect."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from maekit.config import (
    AugmentConfig,
    DataConfig,
    DecoderConfig,
    MaskConfig,
    ModelConfig,
    OptimizerConfig,
    PretrainConfig,
    RunConfig,
    ScheduleConfig,
    TargetConfig,
    ValidationConfig,
)

T = TypeVar("T")


def by_name(*presets: Callable[[], T]) -> dict[str, Callable[[], T]]:
    """Presets by what is typed for them, which is the function's name with dashes."""
    return {preset.__name__.replace("_", "-"): preset for preset in presets}


def mae_recipe(name: str, encoder: str, micro_batch_limit: int) -> PretrainConfig:
    """The paper's recipe (arXiv 2111.06377, appendix A.1, table 8), which is one for all sizes."""
    return PretrainConfig(
        name=name,
        model=ModelConfig(
            encoder=encoder, image_size=224, decoder=DecoderConfig(kind="self", width=512, depth=8, heads=16)
        ),
        mask=MaskConfig(kind="random", ratio=0.75),
        target=TargetConfig(kind="normalised"),
        data=DataConfig(),
        augment=AugmentConfig(crop="random", scale=(0.2, 1.0), flip=0.5),
        validation=ValidationConfig(),
        optimizer=OptimizerConfig(base_lr=1.5e-4, betas=(0.9, 0.95), weight_decay=0.05),
        schedule=ScheduleConfig(
            epochs=800, recipe_batch_size=4096, warmup_epochs=40, micro_batch_limit=micro_batch_limit
        ),
        run=RunConfig(),
    )


def vit_tiny() -> PretrainConfig:
    """ViT-Ti/16 at 224 px in the paper's recipe.

    Source: arXiv 2111.06377 table 8; the paper itself starts at ViT-B. Cost: 11.2 GFLOP forward an image, 95% of it
    in the decoder. Expected: nothing published in this recipe. MAE-Lite (arXiv 2205.14443) reports 78.0 fine-tuned at
    this size, with 12 heads and after 400 epochs with a decoder of one block. Measured: not on ImageNet.
    """
    return mae_recipe("vit-tiny", "vit_tiny_patch16_224", 256)


def vit_small() -> PretrainConfig:
    """ViT-S/16 at 224 px in the paper's recipe.

    Source: arXiv 2111.06377 table 8, which starts at ViT-B. Expected: nothing published in this recipe; see
    `vit-small-crossmae`. Measured: not on ImageNet.
    """
    return mae_recipe("vit-small", "vit_small_patch16_224", 256)


def vit_small_crossmae() -> PretrainConfig:
    """ViT-S/16 at 224 px with CrossMAE's decoder: 12 blocks of width 256 that read weighted maps of the whole encoder.

    Source: arXiv 2401.14391 and its released code; the rest is the paper's recipe. Cost: 4.9 GFLOP forward an image.
    Expected: 79.32 fine-tuned by `finetune vit-small-crossmae`, with a norm of its own for each decoder block's
    mixture, where ours is the encoder's (docs/log.md, 2026-11-24). Measured: not on ImageNet.
    """
    paper = mae_recipe("vit-small-crossmae", "vit_small_patch16_224", 256)
    decoder = DecoderConfig(kind="cross", width=256, depth=12, heads=8, feature_maps=13)
    return replace(paper, model=replace(paper.model, decoder=decoder))


def vit_base() -> PretrainConfig:
    """ViT-B/16 at 224 px in the paper's recipe.

    Source: arXiv 2111.06377 table 8, released for 1,600 epochs (`--epochs 1600`). Cost: 19.3 GFLOP forward an image.
    Expected: 83.6 fine-tuned, 67.8 linear after 1,600 epochs; mmpretrain reports 83.3 and 65.1 after 800.
    Measured: not on ImageNet.
    """
    return mae_recipe("vit-base", "vit_base_patch16_224", 256)


def vit_large() -> PretrainConfig:
    """ViT-L/16 at 224 px in the paper's recipe.

    Source: arXiv 2111.06377 table 8. Cost: published as 42 h on 64 V100 for 800 epochs. Expected: 85.9 fine-tuned,
    76.0 linear after 1,600 epochs. Measured: not on ImageNet.
    """
    return mae_recipe("vit-large", "vit_large_patch16_224", 128)


def vit_huge() -> PretrainConfig:
    """ViT-H/14 at 224 px in the paper's recipe.

    Source: arXiv 2111.06377 table 8. Expected: 86.9 fine-tuned, 77.2 linear after 1,600 epochs. Measured: not on
    ImageNet.
    """
    return mae_recipe("vit-huge", "vit_huge_patch14_224", 64)


def _flyegle(name: str, encoder: str, epochs: int, lr: float) -> PretrainConfig:
    """FlyEgle/MAE-pytorch's settings, by its train_mae.py, the commands in its readme and torch's defaults.

    Raw pixels, 1-D positions, its prediction head, torch's epsilon in LayerNorm, torchvision's crop, an absolute rate
    at 8x256 in a cosine of its own, decay of all parameters.
    """
    paper = mae_recipe(name, encoder, 256)
    decoder = replace(paper.model.decoder, positions="sincos1d", head="norm_conv_transpose", norm_eps=1e-5)
    return replace(
        paper,
        model=replace(paper.model, positions="sincos1d", norm_eps=1e-5, decoder=decoder),
        target=TargetConfig(kind="raw"),
        augment=replace(paper.augment, scale=(0.08, 1.0), interpolation="bilinear"),
        optimizer=replace(paper.optimizer, base_lr=None, lr=lr, decay_all=True),
        schedule=replace(paper.schedule, epochs=epochs, recipe_batch_size=8 * 256, course="early_cosine"),
    )


def vit_tiny_flyegle() -> PretrainConfig:
    """ViT-Ti/16 with FlyEgle/MAE-pytorch's settings: 300 epochs, lr 1.5e-4 at batch 2048, raw pixels.

    Its loss averages over all pixels, ours over hidden ones: a factor of 4/3 on the value and, under AdamW, next to
    none on the course. Left out: its RandAugment (`--augment.randaugment rand-m10-n2`, colour images alone), its
    CutMix, which its command leaves on, and its one mask for a whole batch. Measured: not on ImageNet.
    """
    return _flyegle("vit-tiny-flyegle", "vit_tiny_patch16_224", 300, 1.5e-4)


def vit_base_flyegle() -> PretrainConfig:
    """ViT-B/16 with FlyEgle/MAE-pytorch's settings: 400 epochs, lr 1.2e-3 at batch 2048, raw pixels.

    What differs from its code is said at `vit-tiny-flyegle`. Measured: not on ImageNet.
    """
    return _flyegle("vit-base-flyegle", "vit_base_patch16_224", 400, 1.2e-3)


def vit_tiny_fast() -> PretrainConfig:
    """ViT-Ti/16 at 224 px, sooner good enough: less work an image, and a rate for short runs.

    Source: ours; CrossMAE's decoder (arXiv 2401.14391) of two blocks on a quarter of the hidden patches, 90% hidden.
    Measured: what each choice brought after the same 200 CPU seconds on Tiny ImageNet's 50 classes at 64 px, kNN and
    linear probe on held-out training images, one run each, standard errors .006 and .008 (all: docs/recipes.md): as it
    is .089, .183 (again .083, .175); 80% hidden .077, .178, 75% .077, .175; half of the hidden predicted .074, .167;
    all .079, .171; a plain decoder of four blocks, 75% hidden .079, .151; a decoder of one block .092, .191; half the
    rate .096, .177, twice .087, .180; batches of 256 in place of 64 .062, .136; Muon .095, .176; the encoder's average
    .080, .179; two views of a decode .084, .185; half the size at first .076, .158; a cooldown .087, .196. Six blocks
    (`--model.depth 6`) had .122, .202. Beside others: docs/results.md.
    """
    fast = _fast("vit-tiny-fast", "vit_tiny_patch16_224", 128, _shallow(192, 6), ratio=0.9)
    return replace(
        fast,
        optimizer=replace(fast.optimizer, base_lr=4e-3),
        schedule=replace(fast.schedule, epochs=200, recipe_batch_size=128, warmup_epochs=10),
    )


def vit_base_fast() -> PretrainConfig:
    """ViT-B/16 at 224 px for 100 epochs, with a shallow decoder on few patches: a third of the work an image.

    Source: ours, after "Masked Autoencoders are Secretly Efficient Learners" (CVPR workshops 2024: a higher ratio, few
    epochs, a shallow decoder; ViT-B in 9 hours of one A100 to 82.9, fine-tuned with layer decay) and CrossMAE's decoder
    (arXiv 2401.14391), of two blocks on a quarter of the hidden patches; 85% hidden. Cost: 17.2 GFLOP in training an
    image, as `maekit plan vit-base-fast` counts, where `vit-base` takes 58. Measured: not at all.
    """
    return _fast("vit-base-fast", "vit_base_patch16_224", 512, _shallow(512, 16), ratio=0.85)


def vit_large_fast() -> PretrainConfig:
    """ViT-L/16 at 224 px, with what `vit-base-fast` departs in from the paper.

    Source: as there; nothing is published for this size. Measured: not at all.
    """
    return _fast("vit-large-fast", "vit_large_patch16_224", 256, _shallow(512, 16), ratio=0.85)


def _shallow(width: int, heads: int) -> DecoderConfig:
    return DecoderConfig(kind="cross", width=width, depth=2, heads=heads, predicted_share=0.25)


def _fast(name: str, encoder: str, micro_batch_limit: int, decoder: DecoderConfig, *, ratio: float) -> PretrainConfig:
    """The paper's recipe with less work an image, for an eighth of its epochs."""
    mae = mae_recipe(name, encoder, micro_batch_limit)
    return replace(
        mae,
        model=replace(mae.model, decoder=decoder),
        mask=MaskConfig(kind="random", ratio=ratio),
        schedule=replace(mae.schedule, epochs=100, warmup_epochs=5),
    )


def cifar() -> PretrainConfig:
    """ViT-Ti with 2-px patches for 32-px images.

    Source: the sizes and schedule of IcarusWizard/MAE (ViT 192/12/3, decoder 192/4/3, 2,000 epochs, batch 4096), which
    reports 89.77 on CIFAR-10 fine-tuned against 74.13 from scratch, with raw pixels and no augmentation. Ours crops
    after padding and flips, and predicts normalised pixels. Cost: 0.9 GFLOP forward an image. Measured: see
    docs/results.md.
    """
    mae = mae_recipe("cifar", "vit_tiny_patch16_224", 1024)
    return replace(
        mae,
        model=ModelConfig(
            encoder="vit_tiny_patch16_224",
            image_size=32,
            patch_size=2,
            decoder=DecoderConfig(kind="self", width=192, depth=4, heads=3),
        ),
        data=DataConfig(normalise="half"),
        augment=AugmentConfig(crop="pad", flip=0.5),
        validation=ValidationConfig(crop_share=1.0),
        schedule=replace(mae.schedule, epochs=2000, recipe_images=50_000, warmup_epochs=200),
    )


def cifar_laptop() -> PretrainConfig:
    """A narrow ViT with a convolutional stem for 32-px images, over night on two CPU cores.

    Source: ours: 1.35 M parameters, 128 wide, six blocks, 4-px patches (without the stem: `--model.stem patch`),
    CrossMAE's decoder (arXiv 2401.14391) of one block on half of the hidden patches, crops, and a constant rate with a
    cooldown, so that `--branch` ends one run at several lengths. Cost: some five CPU hours for its 100 epochs of 50,000
    images, by the time of its step (docs/log.md, 2026-11-29). Measured: not yet.
    """
    return replace(
        cifar(),
        name="cifar-laptop",
        model=ModelConfig(
            encoder="vit_tiny_patch16_224",
            image_size=32,
            patch_size=4,
            width=128,
            depth=6,
            heads=4,
            stem="conv",
            decoder=DecoderConfig(kind="cross", width=128, depth=1, heads=4, predicted_share=0.5),
        ),
        augment=AugmentConfig(crop="random", scale=(0.3, 1.0), flip=0.5),
        optimizer=OptimizerConfig(base_lr=2e-3, betas=(0.9, 0.95), weight_decay=0.05),
        schedule=ScheduleConfig(
            epochs=100, recipe_batch_size=128, recipe_images=50_000, warmup_epochs=2, course="cooldown"
        ),
    )


def vit_tiny_small_data() -> PretrainConfig:
    """A ViT of half ViT-Ti's depth at 64 px for folders of some dozen to some thousand images: minutes, also on a CPU.

    Source: ours. 8-px patches; CrossMAE's decoder (arXiv 2401.14391) on half of the hidden patches; a length in
    steps, as so few images are seen over and over: 2,000 of 64. Cost: 0.11 GFLOP forward an image. Measured:
    docs/log.md, 2026-11-25: ten classes of Tiny ImageNet, twenty labels each, one draw: fine-tuned .480, from scratch
    .356; after a pretraining of 700 steps no gain.
    """
    mae = mae_recipe("vit-tiny-small-data", "vit_tiny_patch16_224", 64)
    return replace(
        mae,
        model=ModelConfig(
            encoder="vit_tiny_patch16_224",
            image_size=64,
            patch_size=8,
            depth=6,
            decoder=DecoderConfig(kind="cross", width=128, depth=2, heads=4, predicted_share=0.5),
        ),
        optimizer=replace(mae.optimizer, base_lr=4e-3),
        schedule=replace(
            mae.schedule, epochs=100, steps=2000, recipe_batch_size=64, recipe_images=1000, warmup_epochs=5
        ),
    )


def digits() -> PretrainConfig:
    """A narrow ViT with 2-px patches for scikit-learn's 8-px digits: minutes on two CPU cores.

    Source: ours, chosen on a held-out part of the training digits (docs/log.md, 2026-11-24): a cross decoder, 60%
    hidden, shifts by a pixel. Measured: see docs/results.md.
    """
    return PretrainConfig(
        name="digits",
        model=ModelConfig(
            encoder="vit_tiny_patch16_224",
            image_size=8,
            patch_size=2,
            channels=1,
            width=96,
            depth=4,
            heads=4,
            decoder=DecoderConfig(kind="cross", width=64, depth=2, heads=4),
        ),
        mask=MaskConfig(kind="random", ratio=0.6),
        target=TargetConfig(kind="raw"),
        data=DataConfig(source="digits:train", normalise="half", workers=0),
        augment=AugmentConfig(crop="pad", flip=0.0),
        validation=ValidationConfig(source="digits:test", crop_share=1.0),
        optimizer=OptimizerConfig(lr=2e-3, betas=(0.9, 0.95), weight_decay=0.05),
        schedule=ScheduleConfig(epochs=170, recipe_batch_size=64, recipe_images=1437, warmup_epochs=8),
        run=RunConfig(device="cpu"),
    )


PRESETS = by_name(
    vit_tiny_small_data, vit_tiny_fast, vit_base_fast, vit_large_fast,
    vit_tiny, vit_small, vit_small_crossmae, vit_base, vit_large, vit_huge,
    vit_tiny_flyegle, vit_base_flyegle, cifar, cifar_laptop, digits,
)  # fmt: skip
