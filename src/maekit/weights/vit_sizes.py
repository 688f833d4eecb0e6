"""A ViT's config from the shapes of its tensors, and the head counts that no tensor tells.

Attention heads leave no trace in a state dict: those of the published sizes are looked up, others must be given.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

from maekit.config import DecoderConfig, ModelConfig
from maekit.config.model import EncoderPositions
from maekit.config.schema import Size, size
from maekit.config.verbs import WeightsOptions
from maekit.errors import WeightsError
from maekit.weights.blueprint import NO_DECODER, Blueprint, standardisation

Shapes = Mapping[str, tuple[int, ...]]

_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
_DECODER_HEADS = {512: 16}
_NAMES = {
    (192, 12, 16, 16): "vit_tiny_patch16_224",
    (384, 12, 16, 16): "vit_small_patch16_224",
    (768, 12, 16, 16): "vit_base_patch16_224",
    (768, 12, 8, 8): "vit_base_patch8_224",
    (768, 12, 32, 32): "vit_base_patch32_224",
    (1024, 24, 16, 16): "vit_large_patch16_224",
    (1024, 24, 14, 14): "vit_large_patch14_224",
    (1280, 32, 14, 14): "vit_huge_patch14_224",
}
_ANY_SIZE = "vit_base_patch16_224"  # whose width, depth, heads and patch are overridden

_USUAL_SIZE = 224

STEM = "patch_embed.proj.0.weight"
"""The first tensor of a convolutional stem."""

NEEDS_HEADS = "--heads (attention heads leave no trace in the tensors; only published sizes are known)"
NEEDS_DECODER_HEADS = "--decoder-heads (attention heads leave no trace in the tensors; only 16 for width 512 is known)"
NEEDS_SIZE = (
    "--image-size where images are not square, or --encoder where class or register tokens have no positions (as they "
    "are, the positions fit no square)"
)


def heads_of(name: str) -> int | None:
    """Attention heads of a published size by its timm name. None: not known here."""
    width = next((sizes[0] for sizes, known in _NAMES.items() if known == name), None)
    return _HEADS.get(width) if width else None


@dataclass(frozen=True)
class Told:
    """What a layout tells beside the encoder's shapes. None: nothing. decoder: as from `decoder_of`."""

    heads: int | None = None
    decoder_heads: int | None = None
    image_size: Size | None = None
    norm_eps: float | None = None
    positions: EncoderPositions = "learned"
    decoder: dict[str, Any] | None = None


def describe(encoder: Shapes, options: WeightsOptions, told: Told) -> Blueprint:
    """The encoder of a ViT whose tensors are named as in timm, standardised as ImageNet, its decoder in the config."""
    stem = STEM in encoder
    channels = encoder[STEM if stem else "patch_embed.proj.weight"][1]
    width = encoder["pos_embed"][2] if stem else encoder["patch_embed.proj.weight"][0]
    depth, patch = blocks(encoder, "blocks."), patch_of(encoder)
    heads, known = options.heads or told.heads, _HEADS.get(width)
    _check_heads("--heads", heads, width)
    published = _NAMES.get((width, depth, *patch)) if heads in (None, known) else None
    name = options.encoder or published or _ANY_SIZE
    sizes: dict[str, Any] = {}
    if name != published:
        given = heads if options.encoder else heads or known  # a name has heads of its own
        sizes = {"width": width, "depth": depth, "heads": given, "patch_size": as_size(patch)}
    image_size = own_image_size(encoder, patch, options, told)
    needed = [] if options.encoder or heads or known else [NEEDS_HEADS]
    if image_size is None or not (options.encoder or _all_have_positions(encoder, patch, image_size)):
        needed.append(NEEDS_SIZE)
    decoder = NO_DECODER
    if told.decoder is not None:
        decoder, lacking = _decoder(told.decoder, options, told)
        needed += lacking
    model = ModelConfig(
        encoder=name,
        image_size=image_size or as_size(patch),
        channels=channels,
        class_token="cls_token" in encoder,
        register_tokens=encoder.get("reg_token", (1, 0))[1],
        positions=told.positions if width % 4 == 0 else "learned",
        norm_eps=told.norm_eps,
        stem="conv" if stem else "patch",
        layer_scale=layer_scale(encoder),
        decoder=decoder,
        **sizes,
    )
    return Blueprint("encoder", model, *standardisation(channels), needed=tuple(needed))


def patch_of(shapes: Shapes) -> tuple[int, int]:
    """(height, width) of a patch: what the projection covers, or a stem, whose convolutions but the last halve."""
    kernels = [shape[2:] for name, shape in shapes.items() if "patch_embed.proj." in name and len(shape) == 4]
    height, width = kernels[0] if len(kernels) == 1 else (2 ** (len(kernels) - 1),) * 2
    return height, width


def decoder_of(shapes: Shapes, embedding: str, blocks_prefix: str) -> dict[str, Any]:
    """Options of a decoder that its shapes tell."""
    return {"width": shapes[embedding][0], "depth": blocks(shapes, blocks_prefix)}


def _decoder(known: dict[str, Any], options: WeightsOptions, told: Told) -> tuple[DecoderConfig, list[str]]:
    """The config of a decoder, and what it lacks."""
    width = known["width"]
    heads = options.decoder_heads or told.decoder_heads or _DECODER_HEADS.get(width)
    _check_heads("--decoder-heads", heads, width)
    usual: dict[str, Any] = {"positions": "sincos" if width % 4 == 0 else "learned"}
    if told.norm_eps is not None:
        usual["norm_eps"] = told.norm_eps
    # one head is a stand-in: nothing is built while they are needed
    config = DecoderConfig(kind="self", heads=heads or 1, **usual | known)
    return config, [] if heads else [NEEDS_DECODER_HEADS]


def _check_heads(option: str, heads: int | None, width: int) -> None:
    if heads and width % heads:
        raise WeightsError(f"{option} {heads}: does not divide the width, {width}")


def own_image_size(encoder: Shapes, patch: tuple[int, int], options: WeightsOptions, told: Told) -> Size | None:
    """The size of image that the stored positions are for; None where they fit neither a square nor the size given."""
    stated = None if options.resample_positions else options.image_size  # else it is the size to come
    if "pos_embed" not in encoder:
        return told.image_size or stated or _USUAL_SIZE
    stored, prefixes = encoder["pos_embed"][1], _prefixes(encoder)
    for given in (told.image_size, stated):
        if given is not None and stored - patches_of(given, patch) in prefixes:
            return given
    for prefix in prefixes:
        side = isqrt(max(stored - prefix, 0))
        if side and side * side == stored - prefix:
            return as_size((side * patch[0], side * patch[1]))
    return None


def _all_have_positions(encoder: Shapes, patch: tuple[int, int], image_size: Size) -> bool:
    """Whether prefix tokens too have positions, as in models that need no name."""
    if "pos_embed" not in encoder:
        return True
    return encoder["pos_embed"][1] - patches_of(image_size, patch) == _prefixes(encoder)[0]


def _prefixes(encoder: Shapes) -> tuple[int, ...]:
    """How many prefix tokens may have a position of their own, likeliest first: all, none, the class token alone."""
    class_tokens = int("cls_token" in encoder)
    return class_tokens + encoder.get("reg_token", (1, 0))[1], 0, class_tokens


def layer_scale(encoder: Shapes) -> float | None:
    """A start of the factors, which have their values, where every block has them; None where not."""
    factors = [name for name in encoder if name.endswith((".ls1.gamma", ".gamma_1"))]
    return 1e-5 if len(factors) == blocks(encoder, "blocks.") else None


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


def as_size(sides: tuple[int, int]) -> Size:
    """One number where it is enough."""
    return sides[0] if sides[0] == sides[1] else sides
