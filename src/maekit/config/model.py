"""What is pretrained: encoder, decoder, mask and target."""

import dataclasses
from typing import Any, Literal

from pydantic import AliasChoices
from tyro.conf import arg

from maekit.config.schema import ENCODER, POSITIVE, Annotated, Field, MaybeSize, Size, config, part, size
from maekit.errors import ModelError

Positions = Literal["sincos", "learned", "sincos1d"]
EncoderPositions = Literal["sincos", "learned", "sincos1d", "rotary"]

TIMM_ARGUMENTS = {
    "img_size": "image_size", "patch_size": "patch_size", "in_chans": "channels", "embed_dim": "width",
    "depth": "depth", "num_heads": "heads", "window_size": "window",
    "init_values": "layer_scale",
}  # fmt: skip
"""Arguments of `timm.create_model`, and the options that they are."""


@config
class DecoderConfig:
    """The part that paints what was hidden and is thrown away afterwards."""

    kind: Literal["self", "cross", "linear"]
    """self: the paper's, all tokens attend to each other. cross: hidden queries attend to visible tokens
    (CrossMAE, arXiv 2401.14391). linear: one layer, for encoders that see mask tokens (SimMIM)."""
    width: Annotated[int, Field(ge=1)] = 512
    """Channels of the decoder's tokens."""
    depth: Annotated[int, Field(ge=1)] = 8
    """Number of blocks."""
    heads: Annotated[int, Field(ge=1)] = 16
    """Attention heads; must divide the width."""
    positions: Positions = "sincos"
    """How the decoder's tokens know where they are."""
    head: Literal["linear", "norm_conv_transpose"] = "linear"
    """linear: tokens to pixels. norm_conv_transpose: FlyEgle's Linear, LayerNorm, transposed convolution."""
    norm_eps: Annotated[float, Field(gt=0)] = 1e-6
    """Added to the variance in the blocks' and the head's LayerNorm."""
    predicted_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """cross only: share of the hidden patches that is predicted and scored in each step."""
    feature_maps: Annotated[int, Field(ge=0)] = 0
    """cross only: how many encoder blocks' outputs each decoder block mixes by learned weights; 0: the last alone. One
    more than there are blocks: what goes into the first one too, as CrossMAE has it."""


@config
class ModelConfig:
    """Encoder and decoder. The encoder is a timm model under its timm name."""

    encoder: Annotated[str, ENCODER]
    """timm name of the encoder, such as vit_base_patch16_224, swin_tiny_patch4_window7_224, hiera_tiny_224. Of a family
    of your own: module:object:NAME."""
    image_size: Annotated[Size, POSITIVE, arg(aliases=("--image-size",))]
    """Pixels the model sees: one number, or height and width."""
    patch_size: Annotated[MaybeSize, POSITIVE] = None
    """Pixels of a ViT's or Swin's patch: one number, or height and width. None: as the timm name says."""
    channels: Annotated[int, Field(ge=1)] = 3
    """Colour channels of the images, 1 to any number."""
    width: Annotated[int | None, Field(ge=1)] = None
    """Overrides the encoder's width (embed_dim)."""
    depth: Annotated[int | None, Field(ge=1)] = None
    """Overrides the encoder's number of blocks. ViT only."""
    heads: Annotated[int | None, Field(ge=1)] = None
    """Overrides the encoder's attention heads. ViT only."""
    class_token: bool = True
    """Whether a ViT has a class token."""
    register_tokens: Annotated[int, Field(ge=0)] = 0
    """Number of register tokens of a ViT (arXiv 2309.16588)."""
    positions: EncoderPositions = "sincos"
    """sincos: fixed 2-D (the paper). learned: trained from N(0, .02). sincos1d: fixed, over patch numbers (FlyEgle).
    rotary: attention turns queries and keys by row and column (axial RoPE, arXiv 2403.13298); nothing is added."""
    layer_scale: Annotated[float | None, Field(gt=0)] = None
    """What a ViT's or Hiera's blocks add is scaled by learned factors that begin at this, such as 1e-5 (LayerScale,
    arXiv 2103.17239). None: as the timm name says, and most have none."""
    channel_tokens: bool = False
    """A ViT cuts each channel into tokens of its own by one projection, so that a mask hides other patches in each, and
    tells channels by their positions (ChannelViT, arXiv 2309.16088; CA-MAE, 2404.10242). C times as many tokens."""
    stem: Literal["patch", "conv"] = "patch"
    """How a ViT makes tokens of pixels. patch: one projection of each patch. conv: 4x4 convolutions of stride 2 down to
    the patch's size (after arXiv 2106.14881), which see hidden pixels as the mean."""
    norm_eps: Annotated[float | None, Field(gt=0)] = None
    """Added to the variance in a ViT's LayerNorm. None: as the timm name says (1e-6 but for few)."""
    window: Annotated[int | None, Field(ge=1)] = None
    """Overrides a Swin's attention window, in patches."""
    swin_method: Literal["uniform", "dense"] = "uniform"
    """Swin only. uniform: one visible patch in every 2x2, packed (UM-MAE, arXiv 2205.10063). dense: mask tokens
    through the whole network (SimMIM, arXiv 2111.09886)."""
    secondary_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Swin uniform only: share of the visible patches that a token replaces."""
    pool_units: bool = False
    """Hiera only. In pretraining, also pool before the last stage, so that a whole 32-px mask unit is one token and one
    prediction. Off, as in the paper (arXiv 2306.00989): that pooling waits for fine-tuning, and 16 px are."""
    decoder: DecoderConfig
    """The decoder."""

    @property
    def image_hw(self) -> tuple[int, int]:
        return size(self.image_size)

    @property
    def planes(self) -> int:
        """Images of one channel, one above the other, that an image is to its encoder; 1: the image as it is."""
        return self.channels if self.channel_tokens else 1

    @property
    def seen(self) -> tuple[int, int, int]:
        """Channels, height and width of an image as its encoder sees it."""
        (height, width), planes = self.image_hw, self.planes
        return (1 if self.channel_tokens else self.channels), planes * height, width

    @property
    def architecture(self) -> str:
        """The encoder's name without the family that stands before it."""
        return self.encoder.rpartition(":")[2]

    def timm_arguments(self) -> dict[str, Any]:
        """These options as arguments of `timm.create_model`, without those that stay as the encoder's name says."""
        given = {argument: getattr(self, option) for argument, option in TIMM_ARGUMENTS.items()}
        if self.channel_tokens:
            given["in_chans"], *given["img_size"] = self.seen
        return {argument: value for argument, value in given.items() if value is not None}

    def changed(self, *names: str) -> list[str]:
        """Which of these options are not at their defaults: what a family that lacks them has to refuse."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return [name for name in names if getattr(self, name) != defaults[name]]


@config
class MaskConfig:
    """Which patches are hidden."""

    kind: Annotated[str, arg(aliases=("--mask",)), part("mask", "random", "block", "grid", "one_in_2x2")] = "random"
    """random: uniformly drawn. block: grown rectangles (BEiT, arXiv 2106.08254). grid: every n-th stays visible.
    one_in_2x2: one visible in each 2x2 block (UM-MAE). module:object: your own."""
    ratio: Annotated[float, arg(aliases=("--mask-ratio",)), Field(gt=0, lt=1)] = 0.75
    """Share of the mask units that is hidden."""


_Target = Annotated[
    str, part("target", "raw", "normalised"), Field(validation_alias=AliasChoices("kind", "pixels"))  # its old name
]


@config
class TargetConfig:
    """What the hidden patches are compared with. No default: recipes differ, and so do the results."""

    kind: Annotated[_Target, arg(aliases=("--target", "--target.pixels"))]
    """raw: the (standardised) pixels. normalised: each patch less its mean, divided by its standard deviation.
    module:object: your own."""
    loss: Annotated[str, arg(aliases=("--loss",)), part("loss", "l2", "l1")] = "l2"
    """Over hidden patches only. l2: mean squared error. l1: mean absolute error. module:object: your own."""


def check_divides(image_hw: tuple[int, int], unit: tuple[int, int], what: str = "patch") -> None:
    """Raises ModelError, with the nearest sizes that work, where a side of the image is no multiple of the unit's."""
    for side, step, name in zip(image_hw, unit, ("height", "width"), strict=True):
        if side % step or side < step:
            below, above = side // step * step, (side // step + 1) * step
            sizes = f"{below} or {above}" if below else str(above)
            raise ModelError(f"image {name} {side} is not a multiple of the {step}-px {what}; take {sizes}")
