"""Models and their descriptions, and maekit's own layout, in which they are written.

One .safetensors file. Keys: `encoder.` and timm's names, `decoder.`, `adapter.`; `norm.`, `head.` in classifiers. The
header's `maekit` entry is the model's `Blueprint` as JSON.
"""

from dataclasses import replace
from pathlib import Path

import torch

from maekit import storage
from maekit.config import ClassifierConfig
from maekit.errors import WeightsError
from maekit.models.classifier import Classifier
from maekit.models.encoder import ImageEncoder
from maekit.models.mae import MaskedAutoencoder
from maekit.weights.blueprint import Blueprint
from maekit.weights.stored import FACTS

Model = MaskedAutoencoder | Classifier | ImageEncoder


def blueprint_of(model: Model) -> Blueprint:
    """The description from which the model can be built."""
    plain = Blueprint("encoder", model.config, *model.standardise.values(), crop_share=model.crop_share)
    plain = replace(plain, value_range=model.value_range)
    if isinstance(model, MaskedAutoencoder):
        return replace(plain, kind="masked_autoencoder", target=model.target, mask=model.mask)
    if isinstance(model, Classifier):
        return replace(plain, kind="classifier", pooling=model.pooling, classes=model.classes)
    return plain


def build(blueprint: Blueprint) -> Model:
    """An untrained model on the CPU; the global generators are left as they were.

    Raises ModelError where the sizes in the blueprint do not fit each other.
    """
    with torch.random.fork_rng(devices=[]):
        model = _build(blueprint)
    model.crop_share, model.value_range = blueprint.crop_share, blueprint.value_range
    return model


def _build(blueprint: Blueprint) -> Model:
    config, mean, std = blueprint.model, blueprint.mean, blueprint.std
    if blueprint.kind == "masked_autoencoder":
        assert blueprint.target is not None
        assert blueprint.mask is not None
        return MaskedAutoencoder(config, blueprint.target, blueprint.mask, mean=mean, std=std)
    if blueprint.kind == "classifier":
        assert blueprint.pooling is not None
        return Classifier(config, ClassifierConfig(pooling=blueprint.pooling), blueprint.classes, mean=mean, std=std)
    return ImageEncoder(config, mean=mean, std=std)


def encoder_of(model: Model) -> ImageEncoder:
    """The encoder of a model alone, in eval mode. WeightsError where the model's head took the encoder's norm."""
    if isinstance(model, Classifier) and not isinstance(model.norm, torch.nn.Identity):
        raise WeightsError(
            "--part encoder: this classifier norms after the mean, so its encoder has no norm; take all of it"
        )
    encoder = build(replace(blueprint_of(model), kind="encoder"))
    encoder.encoder.load_state_dict(model.encoder.state_dict())
    return encoder.eval()


def metadata(model: Model, *, encoder_alone: bool = False) -> dict[str, str]:
    """The header of a model's file, or of one with its encoder's weights alone, in every layout that can hold it."""
    blueprint = blueprint_of(model)
    return {"format": "pt", FACTS: (replace(blueprint, kind="encoder") if encoder_alone else blueprint).dumped()}


def save(model: Model, path: Path) -> None:
    """Write a model, complete or not at all. Raises StorageError."""
    storage.write_tensors(path, model.state_dict(), metadata(model))
