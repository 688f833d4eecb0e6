"""The smallest configs and commands on which everything can still be seen."""

from collections.abc import Sequence
from dataclasses import replace

from maekit import presets
from maekit.config import DecoderConfig, ModelConfig, PretrainConfig

SIZES = (
    "--model.width", "32", "--model.depth", "2", "--model.heads", "2", "--model.patch-size", "8", "--image-size", "32",
    "--model.decoder.width", "16", "--model.decoder.depth", "1", "--model.decoder.heads", "2", "--device", "cpu",
    "--precision", "fp32",
)  # fmt: skip
"""Words after `maekit pretrain vit-tiny` that make the model tiny."""


def decoder_config(**changes) -> DecoderConfig:
    """A decoder of two narrow blocks."""
    return DecoderConfig(**{"kind": "self", "width": 16, "depth": 2, "heads": 2, **changes})


def model_config(**changes) -> ModelConfig:
    """A ViT of three narrow blocks on 4x6 patches of 4 px."""
    tiny = {
        "encoder": "vit_tiny_patch16_224",
        "image_size": (16, 24),
        "patch_size": 4,
        "width": 32,
        "depth": 3,
        "heads": 2,
        "decoder": decoder_config(),
    }
    return ModelConfig(**{**tiny, **changes})


def shrunk(name: str) -> PretrainConfig:
    """A ViT preset with everything that makes it what it is, but small."""
    preset = presets.PRETRAIN[name]()
    maps = min(preset.model.decoder.feature_maps, 3)
    decoder = replace(preset.model.decoder, width=16, depth=2, heads=2, feature_maps=maps)
    model = replace(preset.model, image_size=16, patch_size=4, width=32, depth=2, heads=2, decoder=decoder)
    return replace(preset, model=model)


def without_epochs(words: Sequence[str]) -> list[str]:
    """A command's words less --epochs and its number, so that --steps may say how long."""
    at = words.index("--epochs") if "--epochs" in words else len(words)
    return [*words[:at], *words[at + 2 :]]
