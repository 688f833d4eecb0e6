"""Every layout maekit reads, and which of them a file is in. Nothing here needs torch but the tensors themselves."""

from typing import TYPE_CHECKING

from maekit.config.verbs import WeightsOptions
from maekit.errors import MaekitError, WeightsError
from maekit.weights import blueprint, vit_sizes
from maekit.weights.blueprint import Blueprint
from maekit.weights.facebook import FACEBOOK
from maekit.weights.flyegle import FLYEGLE
from maekit.weights.huggingface import HUGGINGFACE
from maekit.weights.layout import Layout
from maekit.weights.stored import FACTS, Stored
from maekit.weights.timm import TIMM

if TYPE_CHECKING:
    from torch import Tensor

_NAMED = 3


class _Maekit:
    """maekit's own: the model's state dict with its description beside."""

    name = "maekit"

    def recognises(self, stored: Stored) -> bool:
        ours = any(name.startswith("encoder.") and not name.startswith("encoder.layer") for name in stored.shapes)
        return FACTS in stored.metadata and ours  # transformers' names begin with encoder.layer

    def describe(self, stored: Stored, options: WeightsOptions) -> Blueprint:
        return blueprint.loaded(stored.metadata[FACTS], str(stored.path))

    def tensors(self, stored: Stored, blueprint: Blueprint) -> "dict[str, Tensor]":
        return stored.tensors()


MAEKIT = _Maekit()
LAYOUTS: tuple[Layout, ...] = (MAEKIT, HUGGINGFACE, FLYEGLE, FACEBOOK, TIMM)
"""In the order in which they are tried."""


def identify(stored: Stored, options: WeightsOptions) -> tuple[Layout, Blueprint]:
    """The layout of a file and the model in it. A description that maekit left in the file goes before any deduction.

    Raises WeightsError where no layout has such names, the shapes make no model, or an option says otherwise than the
    file.
    """
    layout = next((layout for layout in LAYOUTS if layout.recognises(stored)), None)
    if layout is None:
        known = ", ".join(layout.name for layout in LAYOUTS)
        names = ", ".join(list(stored.shapes)[:_NAMED]) or "none"
        raise WeightsError(f"{stored.path}: is in no layout maekit knows ({known}); its first tensors: {names}")
    describer = MAEKIT if FACTS in stored.metadata else layout
    try:
        described = describer.describe(stored, options)
    except MaekitError:
        raise
    except (KeyError, IndexError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise WeightsError(f"{stored.path}: is named as {layout.name}, but makes no model ({reason})") from None
    _refuse_unheeded(stored, described, options)
    return layout, described


def _refuse_unheeded(stored: Stored, described: Blueprint, options: WeightsOptions) -> None:
    """What is given for weights that leave it unsaid goes unheeded where they say it: refused where the two differ."""
    model = described.model
    heads = model.heads or vit_sizes.heads_of(model.encoder) or f"those of {model.encoder}"
    said: dict[str, tuple[object, object]] = {
        "--encoder": (options.encoder or None, model.encoder),
        "--heads": (options.heads, heads),
    }
    if described.kind == "masked_autoencoder":
        said["--decoder-heads"] = (options.decoder_heads, model.decoder.heads)
    if described.target is not None:
        said["--target"] = (options.target, described.target.kind)
    for option, (given, own) in said.items():
        if given not in (None, own):
            raise WeightsError(f"{stored.path}: has {own}, so {option} {given} would go unheeded; leave it out")
