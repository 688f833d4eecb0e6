"""Existing weights into a model that is about to be trained."""

import logging

from maekit.models.classifier import Classifier
from maekit.models.encoder import ImageEncoder
from maekit.models.mae import MaskedAutoencoder
from maekit.weights import mismatch
from maekit.weights.load import describe, load

log = logging.getLogger("maekit")

_PIXELS = {"raw", "normalised"}  # which a decoder can be taught one after the other


def continue_from(model: MaskedAutoencoder, weights: str) -> None:
    """Give a masked autoencoder the weights W to go on from: the encoder, and where W predicted the like, its decoder.

    Raises WeightsError where W is of another encoder, patch size or image size.
    """
    theirs = describe(weights).target
    same = theirs is None or theirs.kind == model.target.kind or {theirs.kind, model.target.kind} <= _PIXELS
    source = load(weights, decoder=same)
    copy_encoder(model, source, weights)
    if not isinstance(source, MaskedAutoencoder):
        lacks = "has no decoder" if same else f"predicts another target, {theirs.kind if theirs else ''}"
        log.info("%s: %s; the decoder starts from nothing", weights, lacks)
        return
    for part in ("decoder", "adapter"):
        _copy(part, source, model, f"{weights}: its {part}")


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
    _copy("encoder", source, model, f"{weights}: its encoder ({source.config.encoder})")


def _copy(part: str, source: ImageEncoder, model: ImageEncoder, what: str) -> None:
    given, target = getattr(source, part).state_dict(), getattr(model, part)
    mismatch.check(mismatch.shapes(given, f"{part}."), mismatch.shapes(target.state_dict(), f"{part}."), what)
    target.load_state_dict(given)
