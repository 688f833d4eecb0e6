"""What a checkpoint holds, what it can do, and what it cannot, told from names and shapes, mostly without torch."""

from typing import Any

from maekit import parts
from maekit.config.schema import size
from maekit.config.verbs import InspectOptions
from maekit.errors import WeightsError
from maekit.results import Inspected
from maekit.sections import Facts
from maekit.weights.blueprint import Blueprint, standardisation
from maekit.weights.find import read
from maekit.weights.layout import Layout
from maekit.weights.layouts import identify
from maekit.weights.stored import Stored
from maekit.weights.vit_sizes import NEEDS_DECODER_HEADS, patch_of

_NO_DECODER = "there is no decoder; it is thrown away after pretraining, and many files are published without"
_NO_HEAD = "there is no classification head; finetune makes one"
_VERBS = ("reconstruct", "classify", "embed")
_CANNOT = {
    "masked_autoencoder": {"classify": _NO_HEAD},
    "classifier": {"reconstruct": _NO_DECODER},
    "encoder": {"reconstruct": _NO_DECODER, "classify": _NO_HEAD},
}
_PARTS = {"masked_autoencoder": ["encoder", "decoder"], "classifier": ["encoder", "head"], "encoder": ["encoder"]}
_NAMED_CLASSES = 5


def inspect(options: InspectOptions) -> Inspected:
    """`maekit inspect`: what W holds.

    Of a .safetensors file the header alone is read. Raises WeightsError where it is in no known layout, or damaged.
    """
    parts.say(*options.parts)
    source = read(options.weights)
    layout, blueprint = identify(source, options)
    wanted, own = options.image_size, blueprint.model.image_hw
    if wanted is not None and size(wanted) != own:
        sides = "x".join(map(str, own))
        raise WeightsError(
            f"{options.weights}: is for images of {sides} px, so --image-size goes unheeded; maekit convert changes it"
        )
    answer = _answer(source, layout, blueprint)
    if options.hash and source.files:
        from maekit.storage import file_hash  # brings torch

        answer["sha256"] = ", ".join(map(file_hash, source.files))
    if options.config:
        answer["mismatches"] = _mismatches(source, layout, blueprint, options)
    told = ((name.replace("_", " "), _text(name, value)) for name, value in answer.items())
    return Inspected(**answer, sections=[Facts([fact for fact in told if fact[1]])])


def _answer(source: Stored, layout: Layout, blueprint: Blueprint) -> dict[str, Any]:
    config = blueprint.model
    target_unknown = any(remark.startswith("target") for remark in blueprint.assumed)
    pixels = blueprint.target.kind if blueprint.target else None
    cannot = _CANNOT[blueprint.kind] | _in_want_of_parts(blueprint)
    embeddings = ("patch_embed.proj.weight", "patch_embeddings.projection.weight")
    patches = [shape[2:] for name, shape in source.shapes.items() if name.endswith(embeddings)]
    if config.stem == "conv":
        patches = [patch_of(source.shapes)]
    return {
        "file": str(source.path),
        "layout": layout.name,
        "model": _model(blueprint),
        "image_size": list(config.image_hw),
        "patch_size": list(patches[0]) if patches else None,
        "channels": config.channels,
        "positions": config.positions,
        "decoder": _decoder(blueprint),
        "target": "unknown" if target_unknown else pixels,
        "parts": _PARTS[blueprint.kind],
        "parameters": source.count(set(blueprint.ignored)),
        "dtype": sorted(source.dtypes),
        "mean": list(blueprint.mean),
        "std": list(blueprint.std),
        "crop_share": blueprint.crop_share,
        "value_range": None if blueprint.value_range is None else list(blueprint.value_range),
        "pooling": blueprint.pooling,
        "classes": list(blueprint.classes),
        "can": [verb for verb in _VERBS if verb not in cannot],
        "cannot": cannot,
        "needs": list(blueprint.needed),
        "assumed": list(blueprint.assumed),
        "ignored": list(blueprint.ignored),
    }


def _in_want_of_parts(blueprint: Blueprint) -> dict[str, str]:
    """Why verbs cannot, where W names parts of the user's that were not said, or a target that paints nothing."""
    family, target, mask = blueprint.model.encoder.rpartition(":")[0], blueprint.target, blueprint.mask
    if family and not parts.said(family):
        return dict.fromkeys(_VERBS, f"its encoder is {family}'s, which --parts {family} lets it build")
    named = () if target is None or mask is None else (target.kind, target.loss, mask.kind)
    unsaid = [name for name in named if parts.is_part(name) and not parts.said(name)]
    if unsaid:
        return {"reconstruct": f"it needs {', '.join(unsaid)}: --parts {' '.join(unsaid)}"}
    kind = "" if target is None else target.kind
    if parts.is_part(kind) and not hasattr(parts.find("target", kind).value, "paint"):
        return {"reconstruct": f"its target, {kind}, has no method paint"}
    return {}


def _model(blueprint: Blueprint) -> str:
    """The timm name, and the sizes that differ from it."""
    config = blueprint.model
    sizes = ("width", "depth", "heads", "window", "register_tokens", "layer_scale", "channel_tokens", "stem")
    own = ", ".join(f"{name.replace('_', ' ')} {getattr(config, name)}" for name in config.changed(*sizes))
    return f"{config.encoder} with {own}" if own else config.encoder


def _decoder(blueprint: Blueprint) -> str | None:
    decoder = blueprint.model.decoder
    if blueprint.kind != "masked_autoencoder":
        return None
    if decoder.kind == "linear":
        return "linear"
    heads = "" if NEEDS_DECODER_HEADS in blueprint.needed else f", heads {decoder.heads}"
    return f"{decoder.kind}, width {decoder.width}, depth {decoder.depth}{heads}"


def _mismatches(source: Stored, layout: Layout, blueprint: Blueprint, options: InspectOptions) -> list[str]:
    """Where the tensors differ from the model of a saved config or preset; the last line is the likely fix."""
    import torch  # the tensors' names alone need none of this

    from maekit import presets
    from maekit.config import PretrainConfig
    from maekit.weights import mismatch, native

    config = presets.find(presets.PRETRAIN, PretrainConfig, options.config)
    with torch.device("meta"):
        pixels = standardisation(config.model.channels)  # makes no tensor
        wanted = native.build(Blueprint("masked_autoencoder", config.model, *pixels, config.target, config.mask))
    tensors = layout.tensors(source, blueprint)
    found = mismatch.compare(mismatch.shapes(tensors), mismatch.shapes(wanted.state_dict()))
    return found.lines() if found else []


def _text(name: str, value: Any) -> str:
    if name == "mismatches":
        return f"\n{'':<12}".join(value)
    if name == "classes" and value:
        more = f" and {len(value) - _NAMED_CLASSES} more" if len(value) > _NAMED_CLASSES else ""
        return f"{len(value)}: {', '.join(value[:_NAMED_CLASSES])}{more}"
    if name.endswith("_size") and value:
        return f"{'x'.join(map(str, value))} px"
    if isinstance(value, dict):
        return "; ".join(f"{key}: {text}" for key, text in value.items())
    if isinstance(value, list):
        return ("; " if name in ("needs", "assumed") else ", ").join(map(_plain, value))
    return f"{value:,}" if isinstance(value, int) else _plain(value or "")


def _plain(value: Any) -> str:
    """Without the digits that float32 adds."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
