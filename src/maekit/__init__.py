"""maekit: masked autoencoders, from a folder of images to a good encoder.

    import maekit
    run = maekit.pretrain("vit-tiny-small-data", data="photos", out="runs/photos")  # every verb is a function
    model = maekit.load("runs/photos")                   # MaskedAutoencoder or Classifier, by what the file holds
    picture = maekit.reconstruct(model, images, masked)  # images [N, C, H, W] in [0, 1], masked [N, L] True = hidden
    features = model.features(images)                    # [N, D], those of `maekit embed`; model.encoder is timm's own

Names are imported when first used: timm and torch take seconds, and most mistakes are found without them.
"""

# fmt: off
# isort: off
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maekit import presets
    from maekit.config import ClassifyConfig, PretrainConfig
    from maekit.errors import (
        DataError, ImageError, MaekitError, ModelError, OthersError, RunError, Stopped, StorageError, TrainingError,
        UsageError, WeightsError,
    )
    from maekit.models.classifier import Classifier
    from maekit.models.encoder import ImageEncoder
    from maekit.models.mae import MaskedAutoencoder
    from maekit.results import (
        Classified, Compared, Converted, Demo, Described, Embedded, Evaluated, Examined, Inspected, Packed, Planned,
        Probed, Reconstructed, Result, Run, Served, Suggested,
    )
    from maekit.verbs import (
        app, card, classify, compare, convert, data, demo, embed, evaluate, finetune, inspect, pack, plan, pretrain,
        probe, reconstruct, scratch, suggest, watch,
    )
    from maekit.weights.load import load

__all__ = [
    "Classified", "Classifier", "ClassifyConfig", "Compared", "Converted", "DataError", "Demo", "Described", "Embedded",
    "Evaluated", "Examined", "ImageEncoder", "ImageError", "Inspected", "MaekitError", "MaskedAutoencoder",
    "ModelError", "OthersError", "Packed", "Planned", "PretrainConfig", "Probed", "Reconstructed", "Result", "Run",
    "RunError", "Served", "Stopped", "StorageError", "Suggested", "TrainingError", "UsageError", "WeightsError", "app",
    "card", "classify", "compare", "convert", "data", "demo", "embed", "evaluate", "finetune", "inspect", "load",
    "pack", "plan", "presets", "pretrain", "probe", "reconstruct", "scratch", "suggest", "watch",
]

_HOMES = {
    "Classifier": "models.classifier", "ClassifyConfig": "config", "ImageEncoder": "models.encoder",
    "MaskedAutoencoder": "models.mae", "PretrainConfig": "config", "load": "weights.load",
}
"""Of names that are neither results, nor errors, nor verbs."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'maekit' has no attribute {name!r}")
    if name in ("app", "data", "presets"):  # packages; the first two may be called
        return import_module(f"maekit.{name}")
    others = "verbs" if name.islower() else "errors" if name.endswith(("Error", "Stopped")) else "results"
    return getattr(import_module(f"maekit.{_HOMES.get(name, others)}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
