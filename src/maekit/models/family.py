"""What a kind of encoder (ViT, Swin, Hiera) must offer to become a masked autoencoder, and which one a name means.

The encoder itself stays a native timm model. A family is a stateless object that knows how to build it, how to run it
on the visible part of an image, and where its tokens lie. Parameters that pretraining needs beside the encoder (a token
for secondary masking, heads that fuse several scales) live in the family's *adapter* module, which the masked
autoencoder holds next to encoder and decoder and which is thrown away with the decoder.

Mask units are what masks count and what is hidden: a ViT's patch, a Swin's 16- or 32-px block, a Hiera's 32-px unit.
Patches are what one token that comes out, and one prediction vector, covers: a unit, or an even part of it (Hiera's
16 px).

Legend: N images, C channels, H W pixels, L mask units, V visible, K prefix tokens (class, registers), D width.
"""

import dataclasses
import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, ClassVar, Literal

import timm
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from maekit import parts
from maekit.config import ModelConfig
from maekit.errors import ModelError

Features = Literal["pooled", "class", "patches"]


@dataclass(frozen=True)
class Latents:
    """What an encoder makes of an image.

    tokens: [N, K + V, D], K prefix tokens first, then one token a patch (of the full image if nothing is hidden).
    index: [N, V] int64, the patch (raster number in the grid of patches) that each token after the prefix covers; None
        where the tokens cover the whole image in raster order.
    maps: outputs of the blocks that were asked for, each shaped like tokens; empty where none were.
    """

    tokens: Tensor
    prefix: int = 0
    index: Tensor | None = None
    maps: tuple[Tensor, ...] = ()

    @property
    def patches(self) -> Tensor:
        """Tokens without the prefix, [N, V, D]."""
        return self.tokens[:, self.prefix :]


@dataclass(frozen=True)
class Shown:
    """What an encoder is shown of a batch.

    images: [N, C, H, W] standardised. masked: bool [N, L], True = hidden, equal counts in all rows. visible: int64
    [N, V], the visible units' numbers, ascending. maps: numbers of the blocks whose outputs are wanted too, -1 for what
    goes into the first. replaced: as `Family.replaced` drew it; None where nothing is drawn.
    """

    images: Tensor
    masked: Tensor
    visible: Tensor
    maps: tuple[int, ...] = ()
    replaced: Tensor | None = None


class Family:
    """One kind of encoder; a base class whose defaults fit most. `config` is always what the encoder was built from."""

    name: str
    """vit, swin, hiera: also the name of the family's file."""
    options: frozenset[str]
    """Options of `ModelConfig` that it takes beside those of all families; others must be at their defaults."""
    masks: ClassVar[frozenset[str]] = frozenset({"random", "block", "grid", "one_in_2x2", "painted"})
    norm_before_mean = False
    """Order in the native classifier with mean pooling. True (Swin): the encoder's norm, then the mean. False (ViT,
    Hiera): the mean of tokens without norm, then a norm of its own."""

    def mask_kinds(self, config: ModelConfig) -> frozenset[str]:
        """Masks it takes: names of `MaskConfig.kind`, and "painted" for any mask with equal counts."""
        return self.masks

    def build(self, config: ModelConfig, *, drop_path: float = 0.0, masked: bool = False) -> nn.Module:
        """The native timm model without classifier (num_classes=0), untrained, initialised as its paper says.

        masked: whether it has to take images with hidden patches, which may allow fewer sizes. Deterministic under
        torch.manual_seed; nothing is downloaded. Raises ModelError, in one line with what to change, for names, sizes
        or options of the config that this family cannot take (an image size that units or windows do not divide names
        the nearest sizes that work).
        """
        raise NotImplementedError

    def timm_model(self, config: ModelConfig) -> tuple[str, dict[str, Any]]:
        """timm's name of the encoder, and the arguments by which `timm.create_model` makes it, as plain values."""
        return config.architecture, config.timm_arguments()

    def create(self, config: ModelConfig, **more: Any) -> Any:
        """`timm_model`, made by timm. more: further arguments. Raises ModelError for what family or timm refuse."""
        others = {field.name for field in dataclasses.fields(config)} - self.options - _OF_ALL
        for option in config.changed(*sorted(others)):
            raise ModelError(f"model.{option}: {config.encoder} has no such option; leave it out")
        try:
            name, arguments = self.timm_model(config)
            return timm.create_model(name, pretrained=False, num_classes=0, **arguments, **more)
        except (AssertionError, TypeError, ValueError, RuntimeError, ZeroDivisionError, IndexError) as error:
            reason = " ".join(str(error).split()) or "sizes that do not fit each other (heads must divide width)"
            raise ModelError(f"model.encoder {config.encoder}: {reason}") from None

    def adapter(self, encoder: nn.Module, config: ModelConfig) -> nn.Module:
        """Parameters needed in pretraining only, initialised; `nn.Identity()` where there are none.

        Every parameter in it must receive a gradient in a training step.
        """
        return nn.Identity()

    def unit(self, encoder: nn.Module, config: ModelConfig) -> tuple[int, int]:
        """(height, width) of a mask unit in pixels. The grid is the image size divided by it."""
        raise NotImplementedError

    def parts(self, config: ModelConfig) -> int:
        """How many patches lie side by side in a mask unit, in each direction; 1 where a unit is one patch."""
        return 1

    def latent_width(self, encoder: nn.Module, config: ModelConfig) -> int:
        """D of `encode_visible`'s tokens."""
        return int(encoder.num_features)  # type: ignore[arg-type]

    def dense(self, config: ModelConfig) -> bool:
        """True where hidden units are tokens of the encoder too (SimMIM): `encode_visible` then returns one token for
        each unit of the grid in raster order (index None), and only the `linear` decoder fits. False: tokens for the
        visible units' patches, and only the `self` and `cross` decoders fit."""
        return False

    def untrained(self, encoder: nn.Module, config: ModelConfig) -> str | None:
        """What masked pretraining at the config's sizes leaves as it began, and what to change; None: nothing."""
        return None

    def encode_visible(self, encoder: nn.Module, adapter: nn.Module, shown: Shown) -> Latents:
        """Encode without looking at hidden pixels; no host synchronisation.

        Honours timm's `set_grad_checkpointing`. Prefix tokens come first. Tokens and maps have passed the encoder's
        final norm; a family whose blocks have no one width refuses maps in `build` (ModelError).
        """
        raise NotImplementedError

    def replaced(self, adapter: nn.Module, visible: Tensor, keys: Tensor) -> Tensor | None:
        """Which visible units a token stands for (Swin's secondary masking), drawn by keys, int64 [N]: bool [N, V].

        None where the family, or this model, replaces nothing.
        """
        return None

    def encode(self, encoder: nn.Module, images: Tensor, *, blocks: int = 1) -> Latents:
        """Encode whole images with the timm model as it stands, on its native path.

        The tokens ([N, K + T, D]; T may be another number than L: the encoder's last grid in raster order) have passed
        the encoder's final norm, unless `take_norm` removed it. blocks: mean over the outputs of so many last blocks,
        each after the norm; ModelError where they have no common width.
        """
        raise NotImplementedError

    def take_norm(self, encoder: nn.Module) -> nn.Module:
        """Remove the encoder's final norm (an Identity stands in its place) and return it."""
        norm, encoder.norm = encoder.norm, nn.Identity()
        assert isinstance(norm, nn.Module)
        return norm


_OF_ALL = {"encoder", "image_size", "channels", "decoder"}

# A fourth family: one file that offers one object, and one line here.
_FAMILIES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "vit": ("VIT", ("vision_transformer", "deit"), ("VisionTransformer", "Eva")),
    "swin": ("SWIN", ("swin_transformer", "swin_transformer_v2"), ("SwinTransformer", "SwinTransformerV2")),
    "hiera": ("HIERA", ("hiera",), ("Hiera",)),
}


def family_of(encoder: str | nn.Module) -> Family:
    """The family of a timm name or of a timm model.

    The family NAME is the object NAME.upper() in maekit.models.NAME; timm's modules and classes that it covers stand in
    the table above. A family of the user's, an object or a class of such, stands before the architecture,
    `module:object:NAME`. Raises ModelError, with a suggestion where the name is near a known one; UsageError for a part
    that fails.
    """
    if isinstance(encoder, nn.Module):
        classes = {base.__name__ for base in type(encoder).__mro__}
        for name, (_, _, class_names) in _FAMILIES.items():
            if classes & set(class_names):
                return _family(name)
        raise ModelError(f"a {type(encoder).__name__} is none of the families maekit knows: {', '.join(_FAMILIES)}")
    own, _, architecture = encoder.rpartition(":")
    if own:
        part = parts.find("encoder", own)
        return part.make() if isinstance(part.value, type) else part.value
    architecture = architecture.partition(".")[0]
    for name, (_, modules, _) in _FAMILIES.items():
        if timm.models.is_model_in_modules(architecture, modules):
            return _family(name)
    known = [a for _, modules, _ in _FAMILIES.values() for m in modules for a in timm.list_models(module=m)]
    close = difflib.get_close_matches(architecture, known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]}?" if close else ""
    kind = "a timm model of another family" if timm.is_model(architecture) else "not a model timm knows"
    raise ModelError(f"model.encoder: {encoder} is {kind} (families: {', '.join(_FAMILIES)}){hint}")


def _family(name: str) -> Family:
    return getattr(import_module(f"maekit.models.{name}"), _FAMILIES[name][0])


def run_block(block: Any, recompute: bool, *inputs: Any) -> Tensor:
    """A block's output. recompute: what it needs in the backward pass is computed again there, not kept."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False)
    return block(*inputs)


def grid_of(family: Family, encoder: nn.Module, config: ModelConfig) -> tuple[int, int]:
    """(rows, columns) of mask units in an image of the config's size, as the encoder sees it."""
    (_, height, width), (unit_height, unit_width) = config.seen, family.unit(encoder, config)
    return height // unit_height, width // unit_width


def has_class_token(encoder: nn.Module) -> bool:
    return getattr(encoder, "cls_token", None) is not None


def call(module: nn.Module, forward: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """`forward(module, *inputs)` as a forward pass of the module, inside the hooks by which FSDP brings its weights."""
    if not module._forward_pre_hooks:
        return forward(module, *inputs)
    own = module.__dict__.pop("forward", None)
    module.__dict__["forward"] = partial(forward, module)
    try:
        return module(*inputs)
    finally:
        del module.__dict__["forward"]
        if own is not None:
            module.__dict__["forward"] = own


def features(
    encoder: nn.Module, images: Tensor, kind: Features = "pooled", *, blocks: int = 1, family: Family | None = None
) -> Tensor:
    """Features of whole images, as `ImageEncoder.features` has them, of images [N, C, H, W] that are standardised.

    family: the encoder's, if not one of maekit's own. Raises ModelError where a class token is asked of one without.
    """
    latents = (family or family_of(encoder)).encode(encoder, images, blocks=blocks)
    if kind == "class":
        if not has_class_token(encoder):
            raise ModelError("features: this encoder has no class token; take pooled instead")
        return latents.tokens[:, 0]
    return latents.patches.mean(dim=1) if kind == "pooled" else latents.patches


def layer_ids(encoder: nn.Module) -> tuple[dict[str, int], int]:
    """Each parameter's layer, and the number of layers, for layer-wise learning rate decay.

    Embeddings, tokens and positions 0, block i (counted from 0, over all stages) i + 1, what follows the last block
    (final norm, and a classifier's head) the last number; as in the paper's fine-tuning (arXiv 2106.08254, appendix).
    The rate's factor is decay ** (last number - id).
    """
    matcher = encoder.group_matcher(coarse=False)  # type: ignore[operator]
    numbers: dict[str, int] = timm.models.group_parameters(encoder, matcher, reverse=True)
    top = {name: name.partition(".")[0] for name in numbers}
    in_blocks = {name: number for name, number in numbers.items() if top[name] in {"blocks", "layers"}}
    last = 1 + max(in_blocks.values(), default=0)
    # timm counts the final norm with the last block, and register tokens with the head
    after = {name: last if top[name] in {"norm", "fc_norm", "head"} else 0 for name in numbers}
    return after | in_blocks, last
