"""timm's own layout: a state dict under timm's names, `.safetensors` or `.pth`, or a folder as its hub has them.

Which timm model it is stands in the folder's config.json, in the file's metadata, in `--encoder`, or is told by the
shapes (ViTs of published sizes, Swin and Hiera by their depths). Standardisation is that of the pretrained config
where there is one, else ImageNet's. Decoders have no place in this layout.
"""

import json
import re
from dataclasses import replace
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maekit.config import ModelConfig
from maekit.config.model import TIMM_ARGUMENTS, EncoderPositions
from maekit.config.verbs import WeightsOptions
from maekit.errors import WeightsError
from maekit.weights import vit_sizes
from maekit.weights.blueprint import NO_DECODER, Blueprint, Pooling, share_of, standardisation
from maekit.weights.layout import Prefixes, renamed, to_theirs
from maekit.weights.stored import Stored
from maekit.weights.vit_sizes import Told

if TYPE_CHECKING:
    from torch import Tensor

    from maekit.weights.native import Model

_VIT: Prefixes = (("fc_norm.", "norm."), ("head.", "head."), ("", "encoder."))
_SWIN: Prefixes = (("head.fc.", "head."), ("", "encoder."))
_HIERA: Prefixes = (("head.norm.", "norm."), ("head.fc.", "head."), ("", "encoder."))

_SWINS: dict[tuple[int, ...], dict[int, str]] = {
    (2, 2, 6, 2): {96: "tiny"},
    (2, 2, 18, 2): {96: "small", 128: "base", 192: "large"},
}
_HIERAS = {12: {96: "tiny"}, 16: {96: "small"}, 24: {96: "base", 112: "base_plus"}, 48: {144: "large", 256: "huge"}}
_HIERA_STRIDE = (4, 4)


class _Timm:
    name = "timm"

    def recognises(self, stored: Stored) -> bool:
        first = {"blocks.0.attn.qkv.weight", "layers.0.blocks.0.attn.qkv.weight"}
        embedding = {"patch_embed.proj.weight", vit_sizes.STEM}
        return bool(embedding & stored.shapes.keys()) and bool(first & stored.shapes.keys())

    def describe(self, stored: Stored, options: WeightsOptions) -> Blueprint:
        kind, card = _family(stored), _Card(stored, options)
        describe = {"vit": _describe_vit, "swin": _describe_swin, "hiera": _describe_hiera}[kind]
        found = describe(stored, options, card)
        pixels = (card.pretrained.get(name) for name in ("mean", "std"))
        mean, std = standardisation(found.model.channels, *pixels)
        plain = replace(found, mean=mean, std=std, crop_share=share_of(card.pretrained.get("crop_pct")))
        head = "head.weight" if kind == "vit" else "head.fc.weight"
        if head not in stored.shapes:
            if "fc_norm.weight" in stored.shapes:
                raise WeightsError(
                    f"{stored.path}: its norm follows the mean (fc_norm), but there is no head; maekit has that "
                    "order in classifiers only"
                )
            return plain
        pooled = kind != "vit" or "fc_norm.weight" in stored.shapes
        if not pooled and card.arguments.get("global_pool", "token") != "token":
            raise WeightsError(
                f"{stored.path}: pools by {card.arguments['global_pool']} after its norm; maekit has no such ViT"
            )
        pooling: Pooling = "mean" if pooled else "class"
        return replace(plain, kind="classifier", pooling=pooling, classes=card.classes(stored.shapes[head][0]))

    def tensors(self, stored: Stored, blueprint: Blueprint) -> "dict[str, Tensor]":
        names = _names(_family(stored), classifier=blueprint.kind == "classifier")
        return renamed(stored.tensors(), names, ignored=blueprint.ignored)

    def write(self, model: "Model", path: Path) -> None:
        """One `.safetensors` where the path ends so, else a folder that `timm.create_model("local-dir:...")` opens.

        Which model it is, its arguments and pretrained config stand in the file's metadata, or in config.json.
        Raises WeightsError for a masked autoencoder, StorageError.
        """
        from maekit import storage  # brings torch
        from maekit.models.mae import MaskedAutoencoder
        from maekit.weights import native

        if isinstance(model, MaskedAutoencoder):
            raise WeightsError("--to timm: that layout has no place for a decoder; take --part encoder")
        names = _names(model.family.name, classifier=hasattr(model, "head"))
        tensors = {to_theirs(name, names): tensor for name, tensor in model.state_dict().items()}
        card = _card(model, "head.weight" if "head.weight" in tensors else "head.fc.weight")
        facts = native.metadata(model)
        if path.suffix == ".safetensors":
            texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in card.items()}
            storage.write_tensors(path, tensors, {**texts, **facts})
        else:
            storage.write_text(path / "config.json", json.dumps(card, indent=2))
            storage.write_tensors(path / "model.safetensors", tensors, facts)


TIMM = _Timm()


class _Card:
    """What stands beside the tensors: timm's hub config, or the same entries in the metadata."""

    def __init__(self, stored: Stored, options: WeightsOptions) -> None:
        card = stored.config or {name: _plain(text) for name, text in stored.metadata.items()}
        self.architecture = str(options.encoder or card.get("architecture") or card.get("arch") or "")
        self.arguments: dict[str, Any] = _mapping(card.get("model_args"))
        self.pretrained = _mapping(card.get("pretrained_cfg"))
        self.labels = card.get("label_names") or self.pretrained.get("label_names")

    def classes(self, count: int) -> tuple[str, ...]:
        if isinstance(self.labels, list) and len(self.labels) == count:
            return tuple(map(str, self.labels))
        return vit_sizes.numbered(count)

    def overrides(self) -> dict[str, Any]:
        """The config's fields that the model was created with."""
        fields = {TIMM_ARGUMENTS[name]: value for name, value in self.arguments.items() if name in TIMM_ARGUMENTS}
        return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}

    def image_size(self) -> Any:
        size = self.overrides().get("image_size")
        pretrained = self.pretrained.get("input_size")
        return size or (tuple(pretrained[1:]) if pretrained else None)


def _card(model: "Model", head: str) -> dict[str, Any]:
    """What timm's hub keeps in config.json."""
    config, (mean, std) = model.config, model.standardise.values()
    classes, pooling = getattr(model, "classes", ()), getattr(model, "pooling", None)
    architecture, arguments = model.family.timm_model(config)
    if pooling == "mean" and "global_pool" in arguments:
        arguments |= {"global_pool": "avg"} | {name: True for name in arguments if name.endswith("fc_norm")}
    return {
        "architecture": architecture,
        "num_classes": len(classes),
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": config.seen,
            "fixed_input_size": True,
            "interpolation": "bicubic",
            **({} if model.crop_share is None else {"crop_pct": model.crop_share}),
            "mean": mean,
            "std": std,
            "num_classes": len(classes),
            "first_conv": "patch_embed.proj",
            "classifier": head.removesuffix(".weight"),
        },
        **({"label_names": classes} if classes else {}),
    }


def _describe_vit(stored: Stored, options: WeightsOptions, card: _Card) -> Blueprint:
    rotary = "pos_embed" not in stored.shapes
    positions: EncoderPositions = "rotary" if rotary else "learned"
    told = Told(heads=card.overrides().get("heads"), image_size=card.image_size(), positions=positions)
    # rotary ViTs have names of their own in timm, and in maekit those of the same sizes without
    named = replace(options, encoder=options.encoder if rotary else card.architecture)
    return vit_sizes.describe(stored.shapes, named, told)


def _describe_swin(stored: Stored, options: WeightsOptions, card: _Card) -> Blueprint:
    shapes = stored.shapes
    stages = vit_sizes.blocks(shapes, "layers.")
    depths = tuple(vit_sizes.blocks(shapes, f"layers.{stage}.blocks.") for stage in range(stages))
    table = shapes.get("layers.0.blocks.0.attn.relative_position_bias_table")
    second = "layers.0.blocks.0.attn.logit_scale" in shapes
    fields: dict[str, Any] = {"swin_method": "dense", **card.overrides()}
    fields["image_size"] = card.image_size() or options.image_size or (256 if second else 224)
    if not card.architecture and depths in _SWINS and table is not None and table[0] != 169:  # (2 * 7 - 1) ** 2
        fields["window"] = (isqrt(table[0]) + 1) // 2
    named = "swinv2_{}_window8_256" if second else "swin_{}_patch4_window7_224"
    found = _described(shapes, card, _SWINS.get(depths, {}), named, fields)
    if second and not card.architecture and not found.needed:
        such = f"such as {found.model.encoder}"
        needed = f"--encoder (the tensors of a Swin V2 do not tell its window: a timm name, {such})"
        return replace(found, needed=(needed,))
    return found


def _describe_hiera(stored: Stored, options: WeightsOptions, card: _Card) -> Blueprint:
    shapes = stored.shapes
    sizes = _HIERAS.get(vit_sizes.blocks(shapes, "blocks."), {})
    image_size = vit_sizes.own_image_size(shapes, _HIERA_STRIDE, options, Told(image_size=card.image_size()))
    fields = card.overrides() | {"layer_scale": vit_sizes.layer_scale(shapes), "image_size": image_size or 224}
    return _described(shapes, card, sizes, "hiera_{}_224", fields)


def _described(
    shapes: vit_sizes.Shapes, card: _Card, sizes: dict[int, str], named: str, fields: dict[str, Any]
) -> Blueprint:
    """sizes: those that have such depths, by width. named: as timm names a size. fields: the config's, told so far."""
    width, channels, *_ = shapes["patch_embed.proj.weight"]
    own = {"channels": channels, **fields} | ({} if width in sizes else {"width": width})
    name = card.architecture or (named.format(sizes.get(width) or next(iter(sizes.values()))) if sizes else "")
    needed = () if name else ("--encoder (no published size has these depths: name the timm model)",)
    model = ModelConfig(encoder=name, decoder=NO_DECODER, **own)
    return Blueprint("encoder", model, *standardisation(model.channels), needed=needed)


def _family(stored: Stored) -> str:
    if "layers.0.blocks.0.attn.qkv.weight" in stored.shapes:
        return "swin"
    changes_width = any(re.fullmatch(r"blocks\.\d+\.proj\.weight", name) for name in stored.shapes)
    return "hiera" if changes_width else "vit"


def _names(family: str, *, classifier: bool) -> Prefixes:
    if family == "hiera" and not classifier:
        return (("", "encoder."),)
    return {"swin": _SWIN, "hiera": _HIERA}.get(family, _VIT)


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _mapping(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise WeightsError("the entries model_args and pretrained_cfg must be JSON objects")
    return value
