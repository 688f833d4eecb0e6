"""A ViT's config from the shapes of its tensors, and the head counts that no tensor tells.

Attention heads leave no trace in a state dict: those of the published sizes are looked up, others must be given.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isqrt
from typing import Any

from maekit.config import DecoderConfig, ModelConfig
from maekit.config.model import Positions
from maekit.config.schema import Size, size
from maekit.config.verbs import WeightsOptions

Shapes = Mapping[str, tuple[int, ...]]

_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
_DECODER_HEADS = {512: 16}
_NAMES = {
    (192, 12, 16): "vit_tiny_patch16_224",
    (384, 12, 16): "vit_small_patch16_224",
    (768, 12, 16): "vit_base_patch16_224",
    (768, 12, 8): "vit_base_patch8_224",
    (768, 12, 32): "vit_base_patch32_224",
    (1024, 24, 16): "vit_large_patch16_224",
    (1024, 24, 14): "vit_large_patch14_224",
    (1280, 32, 14): "vit_huge_patch14_224",
}
_ANY_SIZE = "vit_base_patch16_224"  # whose width, depth, heads and patch are overridden

NEEDS_HEADS = "--heads (attention heads leave no trace in the tensors; only published sizes are known)"
NEEDS_DECODER_HEADS = "--decoder-heads (attention heads leave no trace in the tensors; only 16 for width 512 is known)"
NEEDS_SIZE = "--image-size (the positions fit no square image)"


@dataclass(frozen=True)
class Told:
    """What a layout tells beside the shapes. None: nothing."""

    heads: int | None = None
    decoder_heads: int | None = None
    image_size: Size | None = None
    norm_eps: float | None = None
    positions: Positions = "learned"


@dataclass
class Described:
    """The config, and the options that must be given before it can be built."""

    model: ModelConfig
    needed: list[str] = field(default_factory=list)


def describe(encoder: Shapes, options: WeightsOptions, told: Told, decoder: DecoderConfig) -> Described:
    """The config of a ViT whose tensors are named as in timm. decoder: as it stands, heads included."""
    width, channels, *patch = encoder["patch_embed.proj.weight"]
    depth, needed = blocks(encoder, "blocks."), []
    heads = options.heads or told.heads
    sizes: dict[str, Any] = {}
    name = options.encoder or _NAMES.get((width, depth, patch[0] if patch[0] == patch[1] else -1), "")
    known = _HEADS.get(width)
    if not options.encoder and (not name or (heads or known) != known):
        if heads is None and known is None:
            needed.append(NEEDS_HEADS)
        name = _ANY_SIZE
        sizes = {"width": width, "depth": depth, "heads": heads or known, "patch_size": _size(patch)}
    image_size = own_image_size(encoder, (patch[0], patch[1]), options, told)
    if image_size is None:
        needed.append(NEEDS_SIZE)
    model = ModelConfig(
        encoder=name,
        image_size=image_size or _size(patch),
        channels=channels,
        class_token="cls_token" in encoder,
        register_tokens=encoder.get("reg_token", (1, 0))[1],
        positions=told.positions if width % 4 == 0 else "learned",
        norm_eps=told.norm_eps,
        decoder=decoder,
        **sizes,
    )
    return Described(model, needed)


def describe_decoder(
    width: int, depth: int, options: WeightsOptions, told: Told, needed: list[str], **rest: Any
) -> DecoderConfig:
    """The config of a decoder; what it lacks is added to `needed`."""
    heads = options.decoder_heads or told.decoder_heads or _DECODER_HEADS.get(width)
    if heads is None:
        needed.append(NEEDS_DECODER_HEADS)
    eps = {} if told.norm_eps is None else {"norm_eps": told.norm_eps}
    positions = "sincos" if width % 4 == 0 else "learned"
    return DecoderConfig(
        kind="self", width=width, depth=depth, heads=heads or 1, **{"positions": positions, **eps, **rest}
    )


def own_image_size(encoder: Shapes, patch: tuple[int, int], options: WeightsOptions, told: Told) -> Size | None:
    """The size of image that the stored positions are for; None where they fit neither a square nor the size given."""
    if "pos_embed" not in encoder:
        return told.image_size or options.image_size or 224
    stored = encoder["pos_embed"][1]
    prefix = ("cls_token" in encoder) + encoder.get("reg_token", (1, 0))[1]
    counts = {stored - placed for placed in {prefix, int("cls_token" in encoder), 0}}
    for given in (told.image_size, options.image_size):
        if given is not None and patches_of(given, patch) in counts:
            return given
    for placed in (prefix, 0, int("cls_token" in encoder)):
        side = isqrt(max(stored - placed, 0))
        if side and side * side == stored - placed:
            return _size((side * patch[0], side * patch[1]))
    return None


def patches_of(image_size: Size, patch: tuple[int, int]) -> int:
    height, width = size(image_size)
    return (height // patch[0]) * (width // patch[1])


def blocks(shapes: Shapes, prefix: str) -> int:
    """How many numbered blocks there are under a prefix such as `blocks.`."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return 1 + max((int(found[1]) for found in map(pattern.match, shapes) if found), default=-1)


def numbered(count: int) -> tuple[str, ...]:
    """Names of classes that a file leaves nameless: their numbers."""
    return tuple(map(str, range(count)))


def _size(sides: "list[int] | tuple[int, ...]") -> Size:
    return sides[0] if sides[0] == sides[1] else (sides[0], sides[1])
