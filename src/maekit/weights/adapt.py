"""Weights for another image size, window or number of channels than they were trained with, where that is asked for.

Legend: L positions, D width, C channels, P values of a patch (height x width x C).
"""

from dataclasses import replace
from math import isqrt, prod

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from maekit.config.schema import size
from maekit.config.verbs import WeightsOptions
from maekit.errors import WeightsError
from maekit.weights.blueprint import Blueprint
from maekit.weights.vit_sizes import STEM, as_size, patch_of
from maekit.weights.windows import px, rewindow

_EMBEDDING, _STEM = "encoder.patch_embed.proj.weight", f"encoder.{STEM}"
_TABLES = ("encoder.pos_embed", "decoder.positions")

Adapted = tuple[Blueprint, dict[str, Tensor]]


def adapt(blueprint: Blueprint, tensors: dict[str, Tensor], options: WeightsOptions, what: str) -> Adapted:
    """Blueprint and tensors (under maekit's own names) as the options want them; unchanged where they want nothing.

    Raises WeightsError where image size or windows differ and resampling was not asked for, or cannot be changed.
    """
    own = blueprint.model
    if options.image_size is not None and size(options.image_size) != own.image_hw:
        blueprint, tensors = _resize(blueprint, tensors, size(options.image_size), options, what)
    if options.window is not None or blueprint.model != own:
        model, tensors = rewindow(own, blueprint.model, tensors, options.window, what)
        blueprint = replace(blueprint, model=model)
    if options.channels is not None and options.channels != blueprint.model.channels:
        blueprint, tensors = _change_channels(blueprint, tensors, options.channels, what)
    return blueprint, tensors


def _resize(
    blueprint: Blueprint, tensors: dict[str, Tensor], wanted: tuple[int, int], options: WeightsOptions, what: str
) -> Adapted:
    own, tables = blueprint.model.image_hw, [name for name in _TABLES if name in tensors]
    if tables and not options.resample_positions:
        raise WeightsError(
            f"{what}: has positions for images of {px(own)}, not {px(wanted)}; --resample-positions resamples them"
        )
    patch = patch_of({name: tensor.shape for name, tensor in tensors.items()})
    planes = blueprint.model.planes
    resampled = {name: _resample(tensors[name], own, wanted, patch, planes) for name in tables}
    model = replace(blueprint.model, image_size=as_size(wanted))
    return replace(blueprint, model=model), {**tensors, **resampled}


def _resample(
    table: Tensor, own: tuple[int, int], wanted: tuple[int, int], patch: tuple[int, int], planes: int
) -> Tensor:
    """[1, L, D] → [1, L of the wanted size, D], bicubic, each of the planes apart; prefix tokens' positions stay."""
    step = _step(table.shape[1], own, patch)
    before, after = ([side // s for side, s in zip(sides, step, strict=True)] for sides in (own, wanted))
    prefix = table.shape[1] - planes * prod(before)
    places = (resample_abs_pos_embed(p, after, before, num_prefix_tokens=0) for p in table[:, prefix:].chunk(planes, 1))
    return torch.cat([table[:, :prefix], *places], dim=1)


def _step(count: int, image_hw: tuple[int, int], patch: tuple[int, int]) -> tuple[int, int]:
    """Pixels from one position to the next: a patch, or a square where a Hiera's kernels overlap or its units count."""
    height, width = image_hw
    if height // patch[0] * (width // patch[1]) <= count and height % patch[0] == 0 and width % patch[1] == 0:
        return patch
    side = isqrt(height * width // count)
    return side, side


def _change_channels(blueprint: Blueprint, tensors: dict[str, Tensor], channels: int, what: str) -> Adapted:
    model, own = blueprint.model, blueprint.model.channels
    if model.channel_tokens:
        raise WeightsError(f"{what}: each of its {own} channels has tokens of its own: --channels cannot change them")
    if model.decoder.head != "linear" and blueprint.kind == "masked_autoencoder":
        raise WeightsError(f"{what}: --channels cannot change what a {model.decoder.head} head predicts; leave it out")
    if blueprint.target is not None and blueprint.target.kind not in ("raw", "normalised"):
        raise WeightsError(f"{what}: --channels cannot change what predicts {blueprint.target.kind}; --part encoder")
    embedding = _STEM if _STEM in tensors else _EMBEDDING
    if embedding not in tensors:
        raise WeightsError(f"{what}: {model.encoder} has no patch embedding whose channels could be changed")
    adapted = {**tensors, embedding: _input_channels(tensors[embedding], channels)}
    for name in ("decoder.head.1.weight", "decoder.head.1.bias", "decoder.head.weight", "decoder.head.bias"):
        if name in tensors:
            adapted[name] = _output_channels(tensors[name], own, channels)
    mean, std = (_values(values, channels) for values in (blueprint.mean, blueprint.std))
    return replace(blueprint, model=replace(model, channels=channels), mean=mean, std=std), adapted


def _input_channels(weight: Tensor, channels: int) -> Tensor:
    """[D, C, h, w] → [D, channels, h, w]: a grey image gives what it gave when it was repeated over C channels."""
    own = weight.shape[1]
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    return weight[:, _cycle(own, channels)] * (own / channels)


def _output_channels(tensor: Tensor, own: int, channels: int) -> Tensor:
    """[P, ...] → [P of so many channels, ...]: one is the mean of all, more repeat them in turn."""
    values = tensor.unflatten(0, (-1, own))
    values = values.mean(dim=1, keepdim=True) if channels == 1 else values[:, _cycle(own, channels)]
    return values.flatten(0, 1)


def _values(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[channel % len(values)] for channel in range(channels))


def _cycle(own: int, channels: int) -> Tensor:
    return torch.arange(channels) % own
