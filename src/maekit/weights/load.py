"""From W, however it is written, to a model."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

from maekit.config.objects import given_weights
from maekit.config.verbs import WeightsOptions
from maekit.errors import WeightsError
from maekit.models.classifier import Classifier
from maekit.models.mae import MaskedAutoencoder
from maekit.parts import say
from maekit.results import Run
from maekit.weights import mismatch, native
from maekit.weights.adapt import adapt
from maekit.weights.blueprint import Blueprint
from maekit.weights.find import find, read
from maekit.weights.layouts import identify

__all__ = ["classifier", "describe", "find", "load", "reconstructor"]

log = logging.getLogger("maekit")


def load(
    weights: str | PathLike[str] | Run | native.Model,
    options: WeightsOptions | None = None,
    *,
    decoder: bool = True,
    parts: Sequence[str] = (),
) -> native.Model:
    """The model that W holds, on the CPU, in eval mode: MaskedAutoencoder, Classifier, or ImageEncoder without either.

    weights: a run or its folder, a .safetensors file, a Hugging Face or timm folder, hf:REPO, a .pt or .pth in a known
    layout; or a model, which is copied. options: what foreign weights leave unsaid, another image size, window or
    number of channels. decoder: False takes the encoder alone of a masked autoencoder, which needs no mask, target or
    loss; some sizes are for whole images only. parts: names of the user's own that may be imported for it. Every
    tensor is used or known to be unused. Raises WeightsError in one line: nothing there, an unknown layout, a pickle
    that would run code, an option that must be given, tensors that do not fit (the first ten, and the likely fix);
    UsageError where W names a part that was not said.
    """
    options, weights = options or WeightsOptions(), given_weights(weights)
    say(*options.parts, *parts)
    source = read(weights)
    layout, blueprint = identify(source, options)
    if blueprint.needed:
        raise WeightsError(
            f"{weights}: in {layout.name} layout; please give {' and '.join(blueprint.needed)}. Where a verb has no "
            "such option, take what maekit convert --to maekit makes of it"
        )
    for remark in blueprint.assumed:
        log.warning("%s: %s", weights, remark)
    tensors = layout.tensors(source, blueprint)
    if not decoder and blueprint.kind == "masked_autoencoder":
        blueprint = replace(blueprint, kind="encoder")
        tensors = {name: tensor for name, tensor in tensors.items() if name.startswith("encoder.")}
    blueprint, tensors = adapt(blueprint, tensors, options, str(weights))
    model = native.build(blueprint)
    found, wanted = mismatch.shapes(tensors), mismatch.shapes(model.state_dict())
    mismatch.check(found, wanted, f"{weights} ({layout.name} layout, read as {blueprint.model.encoder})")
    model.load_state_dict(tensors)
    return model.eval()


def describe(weights: str | Path, options: WeightsOptions | None = None) -> Blueprint:
    """What W says of its model, which is not built. Raises WeightsError where there is nothing, or nothing known."""
    return identify(read(weights), options or WeightsOptions())[1]


def reconstructor(weights: str | Path, options: WeightsOptions | None = None) -> MaskedAutoencoder:
    """W as a model that can reconstruct. WeightsError where it has no decoder."""
    model = load(weights, options)
    if isinstance(model, MaskedAutoencoder):
        return model
    raise WeightsError(
        f"{weights}: holds {_what(model)}, which has no decoder, so it cannot reconstruct; take pretrained weights "
        "that still have theirs"
    )


def classifier(weights: str | Path, options: WeightsOptions | None = None) -> Classifier:
    """W as a model that can classify. WeightsError where it has no head."""
    model = load(weights, options)
    if isinstance(model, Classifier):
        return model
    raise WeightsError(f"{weights}: holds {_what(model)}, which has no head, so it cannot classify; finetune it first")


def _what(model: native.Model) -> str:
    if isinstance(model, MaskedAutoencoder):
        return "a masked autoencoder"
    return "a classifier" if isinstance(model, Classifier) else "an encoder alone"
