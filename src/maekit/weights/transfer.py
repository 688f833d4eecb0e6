"""Existing weights into a model that is about to be trained."""

import logging

from torch import nn

from maekit.errors import WeightsError
from maekit.models.classifier import Classifier
from maekit.models.encoder import ImageEncoder
from maekit.models.mae import MaskedAutoencoder
from maekit.weights.load import load

log = logging.getLogger("maekit")

_NAMED = 3


def continue_from(model: MaskedAutoencoder, weights: str) -> None:
    """Give a masked autoencoder the weights W to go on from: the encoder, and decoder and adapter where W has them.

    Raises WeightsError where W is of another encoder, patch size or image size.
    """
    source = load(weights)
    copy_encoder(model, source, weights)
    if not isinstance(source, MaskedAutoencoder):
        log.info("%s: has no decoder; the decoder starts from nothing", weights)
        return
    for part in ("decoder", "adapter"):
        _copy(getattr(model, part), getattr(source, part), f"{weights}: its {part}")


def copy_encoder(model: ImageEncoder, source: ImageEncoder, weights: str) -> None:
    """The encoder's weights, all of them. Raises WeightsError where the encoders differ.

    Where `model` is a classifier that pools first and norms then, the final norm is not the encoder's any more: it
    starts anew, as in arXiv 2111.06377's fine-tuning. `source` is used up.
    """
    pools_first = isinstance(model, Classifier) and model.pooling == "mean" and not model.family.norm_before_mean
    taken = isinstance(source, Classifier) and source.pooling == "mean" and not source.family.norm_before_mean
    if pools_first and not taken:
        source.family.take_norm(source.encoder)
    if model.standardise.values() != source.standardise.values():
        log.warning("%s: was trained with pixels standardised otherwise (mean, std %s)", weights,
                    source.standardise.values())  # fmt: skip
    _copy(model.encoder, source.encoder, f"{weights}: its encoder ({source.config.encoder})")


def _copy(target: nn.Module, source: nn.Module, what: str) -> None:
    wanted, given = target.state_dict(), source.state_dict()
    differing = [
        f"{name} is {_shape(given, name)} there, {_shape(wanted, name)} here"
        for name in sorted({*wanted, *given})
        if name not in wanted or name not in given or wanted[name].shape != given[name].shape
    ]
    if differing:
        more = f" and {len(differing) - _NAMED} more" if len(differing) > _NAMED else ""
        raise WeightsError(
            f"{what} does not fit this config: {'; '.join(differing[:_NAMED])}{more}; take the preset, image size and "
            "patch size it was trained with"
        )
    target.load_state_dict(given)


def _shape(tensors: dict[str, object], name: str) -> str:
    return str(list(getattr(tensors[name], "shape", []))) if name in tensors else "absent"
