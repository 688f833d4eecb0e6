"""The layout of the paper's released code (facebookresearch/mae, arXiv 2111.06377): pretrained, visualise, fine-tuned.

`.pth` files whose `model` entry holds timm's names for the encoder and `decoder_*` for the rest. The released files
with a decoder do not say what they predict; maekit takes raw pixels unless the kept command line (`norm_pix_loss`) or
`--target` says otherwise, since the files released for looking at pictures predict those.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from maekit.config import TargetConfig
from maekit.config.verbs import WeightsOptions
from maekit.weights import vit_sizes
from maekit.weights.blueprint import Blueprint, Pooling, mask_of
from maekit.weights.layout import Prefixes, papers_tensors, renamed, to_theirs
from maekit.weights.stored import Stored
from maekit.weights.vit_sizes import Told

if TYPE_CHECKING:
    from torch import Tensor

    from maekit.weights.native import Model

_NAMES: Prefixes = (
    ("mask_token", "decoder.mask_token"),
    ("decoder_pos_embed", "decoder.positions"),
    ("decoder_embed.", "decoder.embed."),
    ("decoder_blocks.", "decoder.blocks."),
    ("decoder_norm.", "decoder.head.0."),
    ("decoder_pred.", "decoder.head.1."),
    ("fc_norm.", "norm."),
    ("head.", "head."),
    ("", "encoder."),
)
_ENCODER = {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"}


class _Facebook:
    name = "facebook"

    def recognises(self, stored: Stored) -> bool:
        """An encoder or classifier alone is named as timm names it; the entry `model` makes it this layout's."""
        plain = stored.shapes.keys() >= _ENCODER and "reg_token" not in stored.shapes
        return plain and ("decoder_embed.weight" in stored.shapes or stored.container == "model")

    def describe(self, stored: Stored, options: WeightsOptions) -> Blueprint:
        shapes = stored.shapes
        masked = "decoder_embed.weight" in shapes
        classifier = "head.weight" in shapes and not masked
        decoder = vit_sizes.decoder_of(shapes, "decoder_embed.weight", "decoder_blocks.") if masked else None
        told = Told(positions="learned" if classifier else "sincos", decoder=decoder)
        plain = vit_sizes.describe(shapes, options, told)
        if masked:
            pixels, assumed = target_pixels(stored, options)
            target, mask = TargetConfig(kind=pixels), mask_of(stored.arguments.get("mask_ratio"))
            return replace(plain, kind="masked_autoencoder", target=target, mask=mask, assumed=assumed)
        if classifier:
            pooling: Pooling = "mean" if "fc_norm.weight" in shapes else "class"
            classes = vit_sizes.numbered(shapes["head.weight"][0])
            return replace(plain, kind="classifier", pooling=pooling, classes=classes)
        return plain

    def tensors(self, stored: Stored, blueprint: Blueprint) -> "dict[str, Tensor]":
        return renamed(stored.tensors(), _NAMES, ignored=blueprint.ignored)

    def write(self, model: "Model", path: Path) -> None:
        """One `.pth`, with maekit's description beside the entry `model`. Raises WeightsError, StorageError."""
        import torch  # not needed to describe

        from maekit import storage
        from maekit.weights import native

        named = {to_theirs(name, _NAMES): tensor for name, tensor in papers_tensors(model, self.name).items()}
        with storage.replacing(path) as temporary:
            torch.save({"model": named, **native.metadata(model)}, temporary)


FACEBOOK = _Facebook()


def target_pixels(stored: Stored, options: WeightsOptions) -> tuple[Literal["raw", "normalised"], tuple[str, ...]]:
    """What the decoder predicts, and a remark where that is an assumption."""
    if options.target is not None:
        return options.target, ()
    normalised = stored.arguments.get("norm_pix_loss")
    if isinstance(normalised, bool):
        return ("normalised" if normalised else "raw"), ()
    return "raw", ("target: unknown, the file does not tell; taken as raw pixels (--target normalised if it is not)",)
