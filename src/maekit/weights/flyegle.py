"""The layout of FlyEgle/MAE-pytorch: its masked autoencoder and its classifier.

What is particular to it, and how it becomes a model of maekit's:

- Positions are not in the file: 1-D sin-cos over class token and patches, in encoder and decoder.
- The mask token is no parameter. A convolution embeds an image of one grey (127 / 255, standardised as ImageNet), and
  the first D values of its output *as it lies in memory*, [D, L], are taken for one token: channel 0 fills the first L
  values, channel 1 the next L. (Channels and patches were confused; weights were trained with it, so it is kept.) It
  depends on L, which the file does not tell either: 224 px are assumed unless --image-size says otherwise.
- There is no norm after the decoder's blocks. Prediction is Linear, LayerNorm (`patch_norm`), transposed convolution.
- `norm`, `Decoder.norm`, `Decoder.cls_token` and `Decoder.patch_embed` are in the file and used by nothing.
- LayerNorm adds 1e-5, torch's default. Targets are raw pixels, standardised as ImageNet.
- Its classifier reads the class token.
"""

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from maekit.config import MaskConfig, TargetConfig
from maekit.config.verbs import WeightsOptions
from maekit.weights import vit_sizes
from maekit.weights.blueprint import Blueprint, standardisation
from maekit.weights.layout import Prefixes, renamed
from maekit.weights.stored import Stored
from maekit.weights.vit_sizes import Told

if TYPE_CHECKING:
    from torch import Tensor

_AUTOENCODER: Prefixes = (
    ("Encoder.", "encoder."),
    ("Decoder.blocks.", "decoder.blocks."),
    ("proj.", "decoder.embed."),
    ("restruction.", "decoder.head.linear."),
    ("patch_norm.gamma", "decoder.head.norm.weight"),
    ("patch_norm.beta", "decoder.head.norm.bias"),
    ("unconv.", "decoder.head.unconv."),
)
_CLASSIFIER: Prefixes = (("model.class_head.", "head."), ("model.", "encoder."))
_UNUSED = ("norm.", "Decoder.norm.", "Decoder.cls_token", "Decoder.patch_embed.")
_GREY = "Decoder.unmask_embed.proj"
_GREY_LEVEL = 127 / 255


class _FlyEgle:
    name = "flyegle"

    def recognises(self, stored: Stored) -> bool:
        return f"{_GREY}.weight" in stored.shapes or "model.class_head.weight" in stored.shapes

    def describe(self, stored: Stored, options: WeightsOptions) -> Blueprint:
        shapes, decoder = stored.shapes, None
        classifier = "model.class_head.weight" in shapes
        if not classifier:
            particular = {"positions": "sincos1d", "head": "norm_conv_transpose"}
            decoder = vit_sizes.decoder_of(shapes, "proj.weight", "Decoder.blocks.") | particular
        prefix = "model." if classifier else "Encoder."
        encoder = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
        told = Told(norm_eps=1e-5, positions="sincos1d", decoder=decoder)
        plain = replace(vit_sizes.describe(encoder, options, told), assumed=_assumed(options))
        if classifier:
            classes = vit_sizes.numbered(shapes["model.class_head.weight"][0])
            return replace(plain, kind="classifier", pooling="class", classes=classes)
        target, mask = TargetConfig(kind="raw"), MaskConfig(ratio=0.75)
        ignored = tuple(name for name in shapes if name.startswith(_UNUSED))
        return replace(plain, kind="masked_autoencoder", target=target, mask=mask, ignored=ignored)

    def tensors(self, stored: Stored, blueprint: Blueprint) -> "dict[str, Tensor]":
        from maekit.models import positions  # brings torch

        tensors, config = stored.tensors(), blueprint.model
        classifier = blueprint.kind == "classifier"
        patch = tensors["model.patch_embed.proj.weight" if classifier else f"{_GREY}.weight"].shape[2:]
        grid = tuple(side // step for side, step in zip(config.image_hw, patch, strict=True))
        width = tensors["model.cls_token" if classifier else "Encoder.cls_token"].shape[2]
        places = {"encoder.pos_embed": positions.sincos1d(1 + prod(grid), width)[None]}
        if not classifier:
            weight, bias = (tensors.pop(f"{_GREY}.{part}") for part in ("weight", "bias"))
            places["decoder.positions"] = positions.sincos1d(1 + prod(grid), len(bias))[None]
            places["decoder.mask_token"] = _mask_token(weight, bias, prod(grid))[None, None]
        names = _CLASSIFIER if classifier else _AUTOENCODER
        return {**renamed(tensors, names, ignored=blueprint.ignored), **places}


FLYEGLE = _FlyEgle()


def _mask_token(weight: "Tensor", bias: "Tensor", patches: int) -> "Tensor":
    """The embedding of a grey patch, D values in the order explained above: [D]."""
    mean, std = (weight.new_tensor(values) for values in standardisation(weight.shape[1]))
    embedded = weight.sum(dim=(2, 3)) @ ((_GREY_LEVEL - mean) / std) + bias
    return embedded.repeat_interleave(patches)[: len(bias)]


def _assumed(options: WeightsOptions) -> tuple[str, ...]:
    if options.image_size is not None and not options.resample_positions:
        return ()
    return ("image size: unknown, the file does not tell; taken as 224 (--image-size if it is not)",)
