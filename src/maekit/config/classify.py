"""Everything `maekit finetune` and `maekit scratch` can be told; they differ in their initial weights and preset."""

from typing import Literal

from tyro.conf import AvoidSubcommands, arg

from maekit.config.data import AugmentConfig, DataConfig, ValidationConfig
from maekit.config.model import ModelConfig
from maekit.config.objects import Weights, text
from maekit.config.schema import POSITIVE, Annotated, Field, MaybeSize, config
from maekit.config.training import OptimizerConfig, RunConfig, ScheduleConfig


@config
class ClassifierConfig:
    """How an encoder becomes a classifier. No default pooling: recipes differ, and so do the results."""

    pooling: Literal["mean", "class"]
    """mean: average of the patch tokens, then a norm. class: the class token after the encoder's norm."""
    head_std: Annotated[float, Field(gt=0)] = 2e-5
    """Standard deviation of the head's initial weights."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Largest stochastic depth rate, growing linearly from the first block to the last."""
    patch_drop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a ViT's patches that each image is trained without, drawn anew at each step, for cheaper steps
    (PatchDropout, arXiv 2208.07220). Images are judged whole."""
    freeze_blocks: Annotated[int, arg(aliases=("--freeze-blocks",)), Field(ge=0)] = 0
    """First blocks (and what lies below them) that stay as they are: partial fine-tuning."""
    train_positions: bool = True
    """Whether position embeddings are trained, also where they started as fixed sin-cos."""
    image_size: Annotated[MaybeSize, POSITIVE] = None
    """finetune: image size that differs from the weights' own (with --resample-positions). Short: --image-size."""
    resample_positions: Annotated[bool, arg(aliases=("--resample-positions",))] = False
    """Resample the weights' positions where image or patch size differ. Off: a difference is refused."""
    window: Annotated[int | None, Field(ge=1)] = None
    """finetune: attention window, in patches, that differs from a Swin's own; its position biases are resampled."""


@config
class MixConfig:
    """Mixing images and labels (timm's Mixup)."""

    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Mixup's alpha (arXiv 1710.09412); 0: off."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """CutMix's alpha (arXiv 1905.04899); 0: off."""
    prob: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Probability that a batch is mixed at all."""
    switch_prob: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Probability of CutMix rather than Mixup, where both are on."""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Label smoothing."""


@config
class ClassifyConfig:
    """Supervised training, from pretrained weights or from none."""

    name: str
    """The preset's name."""
    model: AvoidSubcommands[ModelConfig | None] = None
    """finetune: None, the weights' own encoder; scratch: the encoder to build (its decoder is not used)."""
    classifier: ClassifierConfig
    """Pooling, head, what is trained."""
    mix: MixConfig
    """Mixup, CutMix, smoothing."""
    data: DataConfig
    """Labelled training images."""
    augment: AugmentConfig
    """What is done to them."""
    validation: ValidationConfig
    """Labelled held-out images."""
    optimizer: OptimizerConfig
    """Optimizer."""
    schedule: ScheduleConfig
    """Length, batches, learning rate."""
    run: RunConfig
    """Run folder and execution."""
    per_class: Annotated[int | None, Field(ge=1)] = None
    """Few-shot: labelled training images used per class, drawn by the seed; None: all."""
    weights: Weights = text("")
    """W to start from (finetune); empty: none (scratch)."""
