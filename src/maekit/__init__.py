"""maekit: masked autoencoders, from a folder of images to a good encoder.

    import maekit
    model = maekit.load("runs/flowers")                  # MaskedAutoencoder or Classifier, by what the file holds
    picture = maekit.reconstruct(model, images, masked)  # images [N, C, H, W] in [0, 1], masked [N, L] True = hidden
    features = model.features(images)                    # [N, D], those of `maekit embed`; model.encoder is timm's own

Names are imported when first used: timm and torch take seconds, and most mistakes are found without them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maekit.config import ClassifyConfig, PretrainConfig
    from maekit.errors import MaekitError
    from maekit.inference.reconstruct import reconstruct
    from maekit.models.classifier import Classifier
    from maekit.models.mae import MaskedAutoencoder
    from maekit.recipes.pretrain import run as pretrain
    from maekit.weights.load import load

__all__ = [
    "Classifier",
    "ClassifyConfig",
    "MaekitError",
    "MaskedAutoencoder",
    "PretrainConfig",
    "load",
    "pretrain",
    "reconstruct",
]

_HOMES = {
    "Classifier": ("maekit.models.classifier", "Classifier"),
    "ClassifyConfig": ("maekit.config", "ClassifyConfig"),
    "MaekitError": ("maekit.errors", "MaekitError"),
    "MaskedAutoencoder": ("maekit.models.mae", "MaskedAutoencoder"),
    "PretrainConfig": ("maekit.config", "PretrainConfig"),
    "load": ("maekit.weights.load", "load"),
    "pretrain": ("maekit.recipes.pretrain", "run"),
    "reconstruct": ("maekit.inference.reconstruct", "reconstruct"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'maekit' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
