"""Hugging Face transformers' layout: folders of ViTMAEForPreTraining, ViTMAEModel, ViTModel, ViTForImageClassification.

config.json tells sizes, heads, what is added in LayerNorm, and class names; preprocessor_config.json how pixels are
standardised. Files are written with the names that all versions of transformers read; those that newer versions use in
memory, and one that they write, are read as well.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from maekit.config import TargetConfig
from maekit.config.verbs import WeightsOptions
from maekit.errors import WeightsError
from maekit.weights import vit_sizes
from maekit.weights.blueprint import Blueprint, mask_of, standardisation
from maekit.weights.layout import Prefixes, papers_tensors, renamed, to_ours, to_theirs
from maekit.weights.stored import Stored
from maekit.weights.vit_sizes import Told

if TYPE_CHECKING:
    from torch import Tensor

    from maekit.weights.native import Model

T = TypeVar("T")

_NAMES: Prefixes = (
    ("vit.embeddings.cls_token", "encoder.cls_token"),
    ("vit.embeddings.position_embeddings", "encoder.pos_embed"),
    ("vit.embeddings.patch_embeddings.projection.", "encoder.patch_embed.proj."),
    ("vit.encoder.layer.", "encoder.blocks."),
    ("vit.layernorm.", "encoder.norm."),
    ("decoder.mask_token", "decoder.mask_token"),
    ("decoder.decoder_pos_embed", "decoder.positions"),
    ("decoder.decoder_embed.", "decoder.embed."),
    ("decoder.decoder_layers.", "decoder.blocks."),
    ("decoder.decoder_norm.", "decoder.head.0."),
    ("decoder.decoder_pred.", "decoder.head.1."),
    ("classifier.", "head."),
)
_VARIANTS = (("vit.layers.", "vit.encoder.layer."), ("decoder.decoder_encoder.layer.", "decoder.decoder_layers."))
_BLOCK = {
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
}
_BLOCK_VARIANTS = {"attention.o_proj": "attn.proj", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
_QKV = ("attention.attention.query", "attention.attention.key", "attention.attention.value")
_QKV_VARIANTS = ("attention.q_proj", "attention.k_proj", "attention.v_proj")
_IN_BLOCK = re.compile(r"((?:encoder|decoder)\.blocks\.\d+)\.(.+)\.(weight|bias)")


class _HuggingFace:
    name = "huggingface"

    def recognises(self, stored: Stored) -> bool:
        return any(name.endswith("embeddings.patch_embeddings.projection.weight") for name in stored.shapes)

    def describe(self, stored: Stored, options: WeightsOptions) -> Blueprint:
        config = stored.config
        for option, wanted in (("hidden_act", "gelu"), ("qkv_bias", True)):
            if config.get(option, wanted) != wanted:
                reads = f"maekit reads ViTs with {option} {wanted}"
                raise WeightsError(f"{stored.path}: {option} is {config[option]}; {reads}")
        ignored = tuple(name for name in stored.shapes if name.startswith(("pooler.", "vit.pooler.")))
        shapes = _ours(renamed(stored.shapes, (), ignored=ignored), _joined_shape)
        encoder = {name.removeprefix("encoder."): shape for name, shape in shapes.items()}
        masked, size = "decoder.embed.weight" in shapes, config.get("image_size")
        told = Told(
            heads=config.get("num_attention_heads"),
            decoder_heads=config.get("decoder_num_attention_heads"),
            image_size=tuple(size) if isinstance(size, list) else size,
            norm_eps=config.get("layer_norm_eps"),
            positions="sincos" if config.get("model_type", "vit_mae") == "vit_mae" else "learned",
            decoder=vit_sizes.decoder_of(shapes, "decoder.embed.weight", "decoder.blocks.") if masked else None,
        )
        plain = vit_sizes.describe(encoder, options, told)
        stated = (stored.preprocessing.get(f"image_{name}") for name in ("mean", "std"))
        mean, std = standardisation(plain.model.channels, *stated)
        plain = replace(plain, mean=mean, std=std, ignored=ignored)
        if masked:
            pixels = options.target or ("normalised" if config.get("norm_pix_loss") else "raw")
            target, mask = TargetConfig(kind=pixels), mask_of(config.get("mask_ratio"))
            return replace(plain, kind="masked_autoencoder", target=target, mask=mask)
        if "head.weight" in shapes:
            labels = config.get("id2label") or {}
            classes = tuple(str(labels.get(str(n), n)) for n in range(shapes["head.weight"][0]))
            return replace(plain, kind="classifier", pooling="class", classes=classes)
        return plain

    def tensors(self, stored: Stored, blueprint: Blueprint) -> "dict[str, Tensor]":
        import torch  # not needed to describe

        return _ours(renamed(stored.tensors(), (), ignored=blueprint.ignored), torch.cat)

    def write(self, model: "Model", folder: Path) -> None:
        """A folder that `from_pretrained` opens: ViTMAEForPreTraining, ViTForImageClassification, or ViTModel.

        Raises WeightsError where transformers has no such model, StorageError.
        """
        from maekit import storage  # brings torch
        from maekit.weights import native

        tensors = papers_tensors(model, self.name)
        config, preprocessing = _configs(model)
        bare = config["architectures"] == ["ViTModel"]
        named = {theirs: part for name, tensor in tensors.items() for theirs, part in _theirs(name, tensor).items()}
        named = {name.removeprefix("vit.") if bare else name: tensor for name, tensor in named.items()}
        storage.write_text(folder / "config.json", json.dumps(config, indent=2))
        storage.write_text(folder / "preprocessor_config.json", json.dumps(preprocessing, indent=2))
        storage.write_tensors(folder / "model.safetensors", named, native.metadata(model))


HUGGINGFACE = _HuggingFace()


def _ours(named: Mapping[str, T], join: Callable[[list[T]], T]) -> dict[str, T]:
    """Values under maekit's names; query, key and value, which are one tensor there, are joined."""
    ours: dict[str, T] = {}
    parts: dict[str, dict[int, T]] = {}
    for name, value in named.items():
        whole, part = _our_name(name)
        if part is None:
            ours[whole] = value
        else:
            parts.setdefault(whole, {})[part] = value
    for whole, found in parts.items():
        if len(found) < len(_QKV):
            raise WeightsError(f"{whole}: query, key and value are not all there")
        ours[whole] = join([found[number] for number in range(len(_QKV))])
    return ours


def _our_name(name: str) -> tuple[str, int | None]:
    """maekit's name, and which third of the tensor it is where it is one."""
    if name.startswith(("embeddings.", "encoder.", "layers.", "layernorm.")):
        name = "vit." + name
    name = to_ours(to_ours(name, _VARIANTS), _NAMES)
    found = _IN_BLOCK.fullmatch(name)
    if found is None:
        return name, None
    block, inner, kind = found.groups()
    for thirds in (_QKV, _QKV_VARIANTS):
        if inner in thirds:
            return f"{block}.attn.qkv.{kind}", thirds.index(inner)
    inner = _BLOCK.get(inner) or _BLOCK_VARIANTS.get(inner) or inner
    return f"{block}.{inner}.{kind}", None


def _theirs(name: str, tensor: "Tensor") -> "dict[str, Tensor]":
    found = _IN_BLOCK.fullmatch(name)
    if found is None:
        return {to_theirs(name, _NAMES): tensor}
    block, inner, kind = found.groups()
    block = to_theirs(block + ".", _NAMES)
    if inner == "attn.qkv":
        return {f"{block}{third}.{kind}": part for third, part in zip(_QKV, tensor.chunk(3), strict=True)}
    inner = next(theirs for theirs, ours in _BLOCK.items() if ours == inner)
    return {f"{block}{inner}.{kind}": tensor}


def _configs(model: "Model") -> tuple[dict[str, Any], dict[str, Any]]:
    """(config.json, preprocessor_config.json) of a model whose names are the paper's."""
    encoder: Any = model.encoder
    config = model.config
    height, width = config.image_hw
    patch = tuple(encoder.patch_embed.patch_size)
    values: dict[str, Any] = {
        "hidden_size": encoder.embed_dim,
        "num_hidden_layers": len(encoder.blocks),
        "num_attention_heads": encoder.blocks[0].attn.num_heads,
        "intermediate_size": encoder.blocks[0].mlp.fc1.out_features,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": encoder.blocks[0].norm1.eps,
        "image_size": height if height == width else [height, width],
        "patch_size": patch[0] if patch[0] == patch[1] else list(patch),
        "num_channels": config.channels,
        "qkv_bias": True,
    }
    values |= _kind_of(model, values)
    mean, std = model.standardise.values()
    preprocessing = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 3,  # Pillow's bicubic
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
    }
    return values, preprocessing


def _kind_of(model: "Model", encoder: dict[str, Any]) -> dict[str, Any]:
    """The rest of config.json, which tells the kinds of model apart."""
    from maekit.models.classifier import Classifier  # bring torch
    from maekit.models.mae import MaskedAutoencoder

    if isinstance(model, Classifier):
        if model.pooling != "class":
            raise WeightsError(
                "--to huggingface: ViTForImageClassification reads the class token, this classifier the mean; --to timm"
            )
        labels = dict(enumerate(model.classes))
        numbers = {label: number for number, label in labels.items()}
        return {"architectures": ["ViTForImageClassification"], "model_type": "vit", "id2label": labels,
                "label2id": numbers}  # fmt: skip
    if not isinstance(model, MaskedAutoencoder):
        return {"architectures": ["ViTModel"], "model_type": "vit"}
    decoder = model.config.decoder
    if not isinstance(encoder["image_size"], int) or not isinstance(encoder["patch_size"], int):
        raise WeightsError("--to huggingface: ViTMAEForPreTraining takes square images and patches only; --to maekit")
    if decoder.norm_eps != encoder["layer_norm_eps"]:
        raise WeightsError(
            "--to huggingface: ViTMAEForPreTraining has one norm_eps for encoder and decoder; --to maekit"
        )
    return {
        "architectures": ["ViTMAEForPreTraining"],
        "model_type": "vit_mae",
        "decoder_hidden_size": decoder.width,
        "decoder_num_hidden_layers": decoder.depth,
        "decoder_num_attention_heads": decoder.heads,
        "decoder_intermediate_size": 4 * decoder.width,
        "mask_ratio": model.mask.ratio,
        "norm_pix_loss": model.target.kind == "normalised",
    }


def _joined_shape(parts: list[tuple[int, ...]]) -> tuple[int, ...]:
    return (sum(part[0] for part in parts), *parts[0][1:])
