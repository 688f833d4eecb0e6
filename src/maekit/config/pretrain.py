"""Everything `maekit pretrain` can be told."""

from maekit.config.data import AugmentConfig, DataConfig, ValidationConfig
from maekit.config.model import MaskConfig, ModelConfig, TargetConfig
from maekit.config.objects import Weights, text
from maekit.config.schema import config
from maekit.config.training import OptimizerConfig, RunConfig, ScheduleConfig


@config
class PretrainConfig:
    """Masked pretraining."""

    name: str
    """The preset's name."""
    model: ModelConfig
    """Encoder and decoder."""
    mask: MaskConfig
    """What is hidden."""
    target: TargetConfig
    """What is predicted."""
    data: DataConfig
    """Training images."""
    augment: AugmentConfig
    """What is done to them."""
    validation: ValidationConfig
    """Held-out images."""
    optimizer: OptimizerConfig
    """Optimizer."""
    schedule: ScheduleConfig
    """Length, batches, learning rate."""
    run: RunConfig
    """Run folder and execution."""
    weights: Weights = text("")
    """W to continue from: a run folder, .safetensors, Hugging Face folder, hf:REPO, or a known .pt/.pth layout."""
