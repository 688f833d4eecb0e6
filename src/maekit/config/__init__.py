"""Every option there is, as documented dataclasses. Nothing here imports torch, so help and errors come at once."""

from maekit.config.classify import ClassifierConfig, ClassifyConfig, MixConfig
from maekit.config.data import AugmentConfig, DataConfig, ValidationConfig
from maekit.config.model import DecoderConfig, MaskConfig, ModelConfig, TargetConfig
from maekit.config.plan import PlanConfig
from maekit.config.pretrain import PretrainConfig
from maekit.config.probe import ProbeConfig, ProbeOptions
from maekit.config.training import OptimizerConfig, RunConfig, ScheduleConfig

__all__ = [
    "AugmentConfig", "ClassifierConfig", "ClassifyConfig", "DataConfig", "DecoderConfig", "MaskConfig", "MixConfig",
    "ModelConfig", "OptimizerConfig", "PlanConfig", "PretrainConfig", "ProbeConfig", "ProbeOptions", "RunConfig",
    "ScheduleConfig", "TargetConfig", "ValidationConfig",
]  # fmt: skip
