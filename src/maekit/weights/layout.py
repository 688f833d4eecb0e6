"""What a layout of weights must offer, and renaming, which is most of what layouts differ in.

A further layout is one file with one object of this protocol, and one line in `maekit.weights.layouts`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar

from maekit.config.verbs import WeightsOptions
from maekit.errors import WeightsError
from maekit.weights.blueprint import Blueprint
from maekit.weights.stored import Stored

if TYPE_CHECKING:
    from torch import Tensor

    from maekit.weights.native import Model

T = TypeVar("T")

_BLOCK = r"blocks\.\d+\.(norm1|attn\.qkv|attn\.proj|norm2|mlp\.fc1|mlp\.fc2)\.(weight|bias)"
_PAPER = re.compile(
    rf"encoder\.(cls_token|pos_embed|patch_embed\.proj\.(weight|bias)|{_BLOCK}|norm\.(weight|bias))"
    rf"|decoder\.(mask_token|positions|{_BLOCK}|(embed|head\.0|head\.1)\.(weight|bias))|(norm|head)\.(weight|bias)"
)

Prefixes = tuple[tuple[str, str], ...]
"""(theirs, ours), the first that fits is replaced; the empty one fits all."""


class Layout(Protocol):
    """A way in which tensors are named and described. Nothing here needs torch but `tensors`."""

    name: str

    def recognises(self, stored: Stored) -> bool:
        """Whether the names of the tensors are this layout's."""

    def describe(self, stored: Stored, options: WeightsOptions) -> Blueprint:
        """The model that the tensors are of. Raises WeightsError where maekit has no such model."""

    def tensors(self, stored: Stored, blueprint: Blueprint) -> "dict[str, Tensor]":
        """All tensors but the ignored ones, under maekit's own names."""


def to_ours(name: str, prefixes: Iterable[tuple[str, str]]) -> str:
    for theirs, ours in prefixes:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def to_theirs(name: str, prefixes: Prefixes) -> str:
    return to_ours(name, ((ours, theirs) for theirs, ours in prefixes))


def renamed(named: Mapping[str, T], prefixes: Prefixes, *, ignored: Iterable[str] = ()) -> dict[str, T]:
    """The values under maekit's own names, without the ignored ones."""
    left_out = set(ignored)
    return {to_ours(name, prefixes): value for name, value in named.items() if name not in left_out}


def papers_tensors(model: "Model", layout: str) -> "dict[str, Tensor]":
    """A model's tensors, under maekit's own names.

    Raises WeightsError where they are not those of the paper's ViT, class token and decoder, which predicts pixels.
    """
    from maekit.models.mae import MaskedAutoencoder  # bring torch
    from maekit.targets import Pixels

    if isinstance(model, MaskedAutoencoder) and not isinstance(model.objective.target, Pixels):
        raise WeightsError(f"--to {layout}: its decoders predict pixels, not {model.target.kind}; --part encoder")
    tensors: dict[str, Tensor] = model.state_dict()
    if model.config.channel_tokens:
        raise WeightsError(f"--to {layout}: its models cut all channels into one patch; take --to maekit, or --to timm")
    foreign = next((name for name in tensors if not _PAPER.fullmatch(name)), None)
    if foreign is not None:
        other = " or --part encoder" if foreign.startswith("decoder.") else ""
        raise WeightsError(
            f"--to {layout}: this model has {foreign}, for which that layout has no place; take --to maekit{other}"
        )
    for name, what in (("cls_token", "a class token"), ("pos_embed", "a table of positions")):
        if f"encoder.{name}" not in tensors:
            raise WeightsError(f"--to {layout}: its models have {what}, this one has none; take --to maekit")
    return tensors
