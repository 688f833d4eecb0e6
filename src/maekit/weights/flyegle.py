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

from math import prod
from typing import TYPE_CHECKING

from maekit.config import MaskConfig, TargetConfig
from maekit.config.verbs import WeightsOptions
from maekit.weights import vit_sizes
from maekit.weights.blueprint import NO_DECODER, Blueprint, standardisation
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
        told = Told(norm_eps=1e-5, positions="sincos1d")
        if "model.class_head.weight" in stored.shapes:
            return self._describe_classifier(stored, options, told)
        shapes, needed = stored.shapes, list[str]()
        decoder = vit_sizes.describe_decoder(
            shapes["proj.weight"][0],
            vit_sizes.blocks(shapes, "Decoder.blocks."),
            options,
            told,
            needed,
            positions="sincos1d",
            head="norm_conv_transpose",
        )
        found = vit_sizes.describe(_under("Encoder.", stored), options, told, decoder)
        return Blueprint(
            "masked_autoencoder",
            found.model,
            *standardisation(found.model.channels),
            target=TargetConfig(kind="raw"),
            mask=MaskConfig(ratio=0.75),
            ignored=tuple(name for name in shapes if name.startswith(_UNUSED)),
            assumed=_assumed(options),
            needed=(*found.needed, *needed),
        )

    def _describe_classifier(self, stored: Stored, options: WeightsOptions, told: Told) -> Blueprint:
        found = vit_sizes.describe(_under("model.", stored), options, told, NO_DECODER)
        return Blueprint(
            "classifier",
            found.model,
            *standardisation(found.model.channels),
            pooling="class",
            classes=vit_sizes.numbered(stored.shapes["model.class_head.weight"][0]),
            assumed=_assumed(options),
            needed=tuple(found.needed),
        )

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


def _under(prefix: str, stored: Stored) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix(prefix): shape for name, shape in stored.shapes.items() if name.startswith(prefix)}


def _assumed(options: WeightsOptions) -> tuple[str, ...]:
    if options.image_size is not None and not options.resample_positions:
        return ()
    return ("image size: unknown, the file does not tell; taken as 224 (--image-size if it is not)",)
