"""How every config class is made: a frozen keyword-only pydantic dataclass that refuses unknown keys."""

import re
from inspect import get_annotations
from itertools import pairwise
from typing import Annotated, Any, TypeVar, dataclass_transform

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError
from tyro.constructors import PrimitiveConstructorSpec

from maekit import parts

__all__ = [
    "CLIMBING",
    "DEVICE",
    "ENCODER",
    "JITTER",
    "POSITIVE",
    "RISING",
    "SIZE",
    "WIDE",
    "WORDS",
    "Annotated",
    "Field",
    "MaybeSize",
    "Size",
    "config",
    "part",
    "size",
    "verb",
]

T = TypeVar("T")

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass_transform(kw_only_default=True, frozen_default=True)
def config(cls: type[T]) -> type[T]:
    """Class decorator for every group of options.

    Bounds stand in the annotation, `Annotated[int, Field(ge=1)]`, so that defaults stay plain values, as tyro needs.
    """
    return dataclass(cls, kw_only=True, frozen=True, config=_STRICT)  # type: ignore[return-value]


@dataclass_transform(frozen_default=True)
def verb(cls: type[T]) -> type[T]:
    """The same for the options of a verb, whose first ones may be given by their place, with groups as base classes.

    Its own options come first, as in its help.
    """
    made: Any = dataclass(cls, frozen=True, config=_STRICT)
    own = get_annotations(cls)
    fields = made.__dataclass_fields__
    made.__dataclass_fields__ = dict(sorted(fields.items(), key=lambda field: field[0] not in own))
    return made


class _Marker:
    """A note beside a type, for the command line."""


WORDS = _Marker()
"""Of the one option of a verb to which words that follow no option belong."""
SIZE = _Marker()
"""Of an option that is one number or two."""


def _size_of_text(words: list[str]) -> int | tuple[int, int] | None:
    if words[0] == "None":
        return None
    sides = [int(side) for side in re.split(r"[x×,]", words[0].strip("()[]").lower())]
    if len(sides) not in (1, 2):
        raise ValueError(f"{words[0]!r} is neither one number nor height and width")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def _size_as_text(value: Any) -> list[str]:
    return ["x".join(map(str, value)) if isinstance(value, tuple) else str(value)]


def _is_size(value: Any) -> bool:
    return value is None or isinstance(value, int) or (isinstance(value, tuple) and len(value) == 2)


_SIZE_TEXT = PrimitiveConstructorSpec(
    nargs=1,
    metavar="INT|INTxINT",
    instance_from_str=_size_of_text,
    is_instance=_is_size,
    str_from_instance=_size_as_text,
)


def _size_or_text(value: Any) -> Any:
    """Height and width as they are typed, HxW, also in files."""
    if isinstance(value, str) and re.fullmatch(r"\d+\s*[x×,]\s*\d+", value):
        return _size_of_text([value.replace(" ", "")])
    return value


Size = Annotated[int | tuple[int, int], BeforeValidator(_size_or_text), _SIZE_TEXT, SIZE]
MaybeSize = Annotated[int | tuple[int, int] | None, BeforeValidator(_size_or_text), _SIZE_TEXT, SIZE]


def size(value: Size) -> tuple[int, int]:
    """(height, width) of a size written as one number or two."""
    return (value, value) if isinstance(value, int) else value


def _positive(value: Size | None) -> Size | None:
    if value is not None and min(size(value)) < 1:
        raise PydanticCustomError("size", "Input should be 1 or more")
    return value


POSITIVE = AfterValidator(_positive)
"""The bound of a Size, which a Field cannot say in one line for both its forms."""


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise PydanticCustomError("range", "Input should be a range, the smaller number first")
    return value


def _wide(value: object) -> object:
    if isinstance(value, tuple) and not value[0] < value[1]:
        raise PydanticCustomError("range", "Input should be a range, the smaller number first")
    return value


WIDE = AfterValidator(_wide)
"""The bound of a range that holds more than one value, or of a word in its place."""


RISING = AfterValidator(_rising)
"""The bound of a pair that is a range."""


def _climbing(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(later <= earlier for earlier, later in pairwise(values)):
        raise PydanticCustomError("climbing", "Input should be numbers that grow, each one once")
    return values


CLIMBING = AfterValidator(_climbing)
"""The bound of a list of moments."""


def _jitter(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(values) not in (0, 1, 3, 4):
        raise PydanticCustomError("jitter", "Input should be one number, three or four")
    if len(values) == 4 and values[3] > 0.5:
        raise PydanticCustomError("jitter", "Input should have a hue, the last number, of 0.5 at most")
    return values


JITTER = AfterValidator(_jitter)
"""The bound of colour jitter's strengths."""


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise PydanticCustomError("device", "Input should be auto, cpu, cuda, cuda:N or mps")
    return name


DEVICE = AfterValidator(_device)
"""Of a device's name."""


def part(kind: str, *choices: str) -> AfterValidator:
    """The bound of a word that is one of maekit's own choices, or names a part of this kind that the user brings."""

    def check(text: str) -> str:
        if text in choices or parts.is_part(text) or text.partition(",")[0] in (others := sorted(parts.offered(kind))):
            return text
        known = ", ".join([*filter(None, choices), *others])
        wanted = f"Input should be {known + ', or ' if known else ''}one of your own, as module:object"
        raise PydanticCustomError("part", wanted)

    return AfterValidator(check)


def _architecture(text: str) -> str:
    """An encoder's name as timm lists it: no repository, no pretrained tag, no file. A family may stand before it."""
    family, _, name = text.rpartition(":")
    if family not in ("", "timm") and (parts.is_part(family) or family in parts.offered("encoder")):
        return text
    name = text if family != "timm" else name
    plain = re.split(r"[/:\\]", name)[-1]
    if plain == name and "." not in name:
        return name
    architecture, _, tag = plain.partition(".")
    if not architecture or tag in ("pt", "pth", "safetensors", "bin", "ckpt"):
        raise PydanticCustomError(
            "encoder", "Input should be a timm name, such as vit_base_patch16_224: weights are given by --weights"
        )
    raise PydanticCustomError(
        "encoder",
        "Input should be the architecture alone, {architecture}, which is built untrained: pretrained weights are "
        "given by --weights hf:timm/{plain}, to maekit finetune and others, but not to scratch",
        {"architecture": architecture, "plain": plain},
    )


ENCODER = AfterValidator(_architecture)
"""Of a timm name: what it would say of pretrained weights is refused, not ignored."""
