"""Where the tensors of a file and those of a model differ, in one line with the likely fix.

Names are those of maekit's own layout: `encoder.` and timm's names, `decoder.`, `adapter.`, `norm.`, `head.`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maekit.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

_NAMED = 10
_BLOCK = re.compile(r"encoder\.((layers\.\d+\.)?blocks\.\d+)\.")
_TOKENS = {"encoder.cls_token", "encoder.reg_token"}
_OPTIONAL = ("encoder.pos_embed", ".ls1.gamma", ".ls2.gamma", ".gamma_1", ".gamma_2")

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Mismatch:
    """missing: the model has them, the file has not. unexpected: the other way round. misshaped: both, unlike."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: tuple[str, ...]
    fix: str

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshaped)

    def lines(self) -> list[str]:
        """The first ten differences, mis-shaped ones first as they tell most, how many more, the likely fix."""
        every = [
            *self.misshaped,
            *(f"{name} is missing" for name in self.missing),
            *(f"{name} is unexpected" for name in self.unexpected),
        ]
        more = [f"and {len(every) - _NAMED} more"] if len(every) > _NAMED else []
        return [*every[:_NAMED], *more, f"likely fix: {self.fix}"]


def shapes(tensors: "Mapping[str, Tensor]", prefix: str = "") -> Shapes:
    """The tensors' shapes, by their names with a prefix."""
    return {prefix + name: tuple(tensor.shape) for name, tensor in tensors.items()}


def compare(found: Shapes, wanted: Shapes) -> Mismatch:
    """found: of the file, wanted: of the model."""
    misshaped = [name for name in wanted if name in found and found[name] != wanted[name]]
    missing = tuple(name for name in wanted if name not in found)
    unexpected = tuple(name for name in found if name not in wanted)
    return Mismatch(
        missing=missing,
        unexpected=unexpected,
        misshaped=tuple(f"{name} is {list(found[name])}, the model's {list(wanted[name])}" for name in misshaped),
        fix=_likely_fix(found, wanted, set(misshaped), missing, unexpected),
    )


def check(found: Shapes, wanted: Shapes, what: str) -> None:
    """Raises WeightsError, which names the first ten differences, a count and the likely fix."""
    mismatch = compare(found, wanted)
    if mismatch:
        raise WeightsError(f"{what} does not fit: {'; '.join(mismatch.lines())}")


def _likely_fix(
    found: Shapes, wanted: Shapes, misshaped: set[str], missing: tuple[str, ...], unexpected: tuple[str, ...]
) -> str:
    embedding = "encoder.patch_embed.proj.weight"
    if embedding in misshaped:
        (width, channels, *patch), other = found[embedding], wanted[embedding]
        if width != other[0]:
            return f"take the preset or --encoder of width {width}"
        if tuple(patch) != other[2:]:
            return f"set the model's patch size to the file's, {'x'.join(map(str, patch))} px"
        if 1 in (channels, other[1]) and "encoder.pos_embed" in misshaped:
            return "give the model tokens for each channel, or for all channels, as the file has (channel_tokens)"
        return (
            f"the file's images have {channels} channels: maekit convert with --channels {other[1]} inflates or "
            "averages the embedding"
        )
    apart = {*missing, *unexpected}
    if any(name.startswith("encoder.patch_embed.proj.0.") for name in apart):
        return "give the model the stem that the file has (stem)"
    if _TOKENS & apart:
        return "give the model the class and register tokens that the file has (class_token, register_tokens)"
    if apart and all(name.endswith(_OPTIONAL) for name in apart):
        return "give the model the positions and the layer scale that the file has (positions, layer_scale)"
    positions = {"encoder.pos_embed", "decoder.positions"}
    if misshaped and misshaped <= positions:
        return "positions of another image size: maekit convert with --image-size, --resample-positions resamples them"
    if misshaped and all(name.endswith(".relative_position_bias_table") for name in misshaped):
        return "position biases of other windows: maekit convert with --image-size and --window resamples them"
    if misshaped and all(name.startswith("head.") for name in misshaped):
        return f"the file has {found['head.bias'][0]} classes" if "head.bias" in found else "another number of classes"
    depth, depth_wanted = _depth(found), _depth(wanted)
    if depth != depth_wanted:
        return (
            f"the file's encoder has {depth} blocks, the model's {depth_wanted}: set its depth or take another preset"
        )
    return _fix_of_names(misshaped, missing, unexpected)


def _fix_of_names(misshaped: set[str], missing: tuple[str, ...], unexpected: tuple[str, ...]) -> str:
    absent, extra = ({name.partition(".")[0] for name in names} for names in (missing, unexpected))
    if not misshaped and not extra and absent <= {"decoder", "adapter"}:
        return "the file holds an encoder alone; take weights that have a decoder"
    if not misshaped and not absent and extra <= {"decoder", "adapter"}:
        return "the file holds a decoder that this model lacks"
    if misshaped and all(name.startswith("decoder.") for name in misshaped):
        return "set the decoder's width and depth to the file's"
    return "name the timm model that the tensors come from (--encoder)"


def _depth(shapes: Shapes) -> int:
    return len({found[1] for found in map(_BLOCK.match, shapes) if found})
