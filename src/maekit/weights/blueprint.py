"""A model's description: what is needed to build it before its tensors are read, in plain values, without torch."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from maekit.config import DecoderConfig, MaskConfig, ModelConfig, TargetConfig, files
from maekit.errors import UsageError, WeightsError

Kind = Literal["masked_autoencoder", "classifier", "encoder"]
Pooling = Literal["mean", "class"]

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

NO_DECODER = DecoderConfig(kind="self")
"""Stands in the config of models without one; nothing is built of it."""

_LAYOUT = 1
_OF_KIND = {"masked_autoencoder": ("target", "mask"), "classifier": ("pooling", "classes"), "encoder": ()}


@dataclass(frozen=True)
class Blueprint:
    """A masked autoencoder (with target and mask), a classifier (with pooling and classes) or an encoder alone.

    crop_share: of the centre crop it was validated with, where known. value_range: the stored values that were black
    and white to it. ignored: tensors of the file that the model
    knowingly does without. assumed: what the file does not tell and how it
    is taken. needed: options that must say what cannot be assumed; the model can be described, not built.
    """

    kind: Kind
    model: ModelConfig
    mean: tuple[float, ...]
    std: tuple[float, ...]
    target: TargetConfig | None = None
    mask: MaskConfig | None = None
    pooling: Pooling | None = None
    classes: tuple[str, ...] = ()
    crop_share: float | None = None
    value_range: tuple[float, float] | None = None
    ignored: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()

    def dumped(self) -> str:
        """As JSON, the entry `maekit` of a file's metadata."""
        facts = files.to_dict(self)
        names = ("kind", "model", "mean", "std", *_OF_KIND[self.kind], "crop_share", "value_range")
        return json.dumps({"layout": _LAYOUT, **{name: facts[name] for name in names if facts[name] is not None}})


def mask_of(ratio: Any) -> MaskConfig:
    """Random masks of the ratio that a file states, or of the paper's where it states none that can be."""
    return MaskConfig(ratio=ratio) if isinstance(ratio, float) and 0 < ratio < 1 else MaskConfig()


def share_of(value: Any) -> float | None:
    """The share of a centre crop that a file states. Raises ValueError where it is none."""
    if value is None:
        return None
    if not 0 < float(value) <= 1:
        raise ValueError(f"a centre crop cannot take {value} of the image")
    return float(value)


def range_of(value: Any) -> tuple[float, float] | None:
    """The range of stored values that a file states. Raises ValueError where it is none."""
    if value is None:
        return None
    low, high = map(float, value)
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"a range of values cannot be {low} to {high}")
    return low, high


def standardisation(
    channels: int, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) for images of so many channels: those given, else ImageNet's, else 0.5 where neither has as many."""
    mean, std = mean or _IMAGENET_MEAN, std or _IMAGENET_STD
    if len(mean) != channels or len(std) != channels:
        return (0.5,) * channels, (0.5,) * channels
    return tuple(map(float, mean)), tuple(map(float, std))


def loaded(text: str, origin: str) -> Blueprint:
    """The reverse of `Blueprint.dumped`. Raises WeightsError where it is damaged or of a newer maekit."""
    try:
        facts = json.loads(text)
        if facts["layout"] > _LAYOUT:
            raise WeightsError(f"{origin}: was written by a newer maekit (layout {facts['layout']}); update maekit")
        kind, model = facts["kind"], facts["model"]
        if kind == "masked_autoencoder" and model["encoder"].startswith("hiera"):
            model = {"pool_units": True, **model}  # files from before there was a choice
        needed = {name: facts[name] for name in ("kind", "mean", "std", *_OF_KIND[kind])} | {"model": model}
        if None in needed.values():
            raise ValueError
        seen = {"crop_share": share_of(facts.get("crop_share")), "value_range": range_of(facts.get("value_range"))}
        return files.from_dict(Blueprint, needed | seen, f"{origin}: header")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError) as error:
        reason = f" ({error})" if isinstance(error, UsageError) else ""
        raise WeightsError(f"{origin}: its header is damaged{reason}") from None
