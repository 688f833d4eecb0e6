"""How every config class is made: a frozen keyword-only pydantic dataclass that refuses unknown keys."""

import dataclasses
import re
from collections.abc import Callable
from inspect import get_annotations
from itertools import pairwise
from typing import Annotated as Annotated
from typing import Any, TypeVar, dataclass_transform

from pydantic import AfterValidator, BeforeValidator, ConfigDict
from pydantic import Field as Field
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError
from tyro.constructors import PrimitiveConstructorSpec

from maekit import parts

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


# Notes beside a type, for the command line.
WORDS = object()
"""Of the one option of a verb to which words that follow no option belong."""
SIZE = object()
"""Of an option that is one number or two."""


def size_of_text(word: str) -> int | tuple[int, int] | None:
    """`64`, `64x96`, `(64,96)` or `None` as a size."""
    if word == "None":
        return None
    first, *second = map(int, re.split(r"[x×,]", word.strip("()[]").lower()))
    return (first, second[0]) if second else first


_SIZE_TEXT = PrimitiveConstructorSpec(
    nargs=1,
    metavar="INT|INTxINT",
    instance_from_str=lambda words: size_of_text(words[0]),
    is_instance=lambda value: isinstance(value, int | None) or (isinstance(value, tuple) and len(value) == 2),
    str_from_instance=lambda value: ["x".join(map(str, value)) if isinstance(value, tuple) else str(value)],
)


def _size_or_text(value: Any) -> Any:
    """Height and width as they are typed, HxW, also in files."""
    if isinstance(value, str) and re.fullmatch(r"\d+\s*[x×,]\s*\d+", value):
        return size_of_text(value.replace(" ", ""))
    return value


Size = Annotated[int | tuple[int, int], BeforeValidator(_size_or_text), _SIZE_TEXT, SIZE]
MaybeSize = Annotated[int | tuple[int, int] | None, BeforeValidator(_size_or_text), _SIZE_TEXT, SIZE]


def size(value: Size) -> tuple[int, int]:
    """(height, width) of a size written as one number or two."""
    return (value, value) if isinstance(value, int) else value


def _bound(holds: Callable[[Any], object], wanted: str) -> AfterValidator:
    """A bound that a Field cannot say in one line."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise PydanticCustomError("bound", f"Input should {wanted}")
        return value

    return AfterValidator(check)


_RANGE = "be a range, the smaller number first"
POSITIVE = _bound(lambda side: side is None or min(size(side)) >= 1, "be 1 or more")
"""Of a Size, in both its forms."""
RISING = _bound(lambda pair: pair[0] <= pair[1], _RANGE)
"""Of a pair that is a range."""
WIDE = _bound(lambda pair: not isinstance(pair, tuple) or pair[0] < pair[1], _RANGE)
"""Of a range that holds more than one value, or of a word in its place."""
CLIMBING = _bound(lambda moments: all(a < b for a, b in pairwise(moments)), "be numbers that grow, each one once")
"""Of a list of moments."""
JITTER = _bound(lambda strengths: len(strengths) in (0, 1, 3, 4), "be one number, three or four")
"""Of colour jitter's strengths."""
HUE = _bound(lambda strengths: max(strengths[3:], default=0) <= 0.5, "have a hue, the last number, of 0.5 at most")
"""Of the fourth of them, where it is there."""
DEVICE = _bound(re.compile(r"auto|cpu|mps|cuda(:\d+)?").fullmatch, "be auto, cpu, cuda, cuda:N or mps")
"""Of a device's name."""


@dataclasses.dataclass(frozen=True)
class PartOf(AfterValidator):
    """The bound of a word that is one of some choices, or names a part that the user brings."""

    choices: tuple[str, ...] = ()
    kind: str = ""


PART_NAME = PartOf(lambda text: text, (), "any")
"""Of the name of a part, of whatever kind."""


def part(kind: str, *choices: str) -> PartOf:
    """The bound of a word that is one of maekit's own choices, or names a part of this kind that the user brings."""

    def check(text: str) -> str:
        if text in choices or parts.is_part(text) or text.partition(",")[0] in (others := sorted(parts.offered(kind))):
            return text
        known = ", ".join([*filter(None, choices), *others])
        wanted = f"Input should be {known + ', or ' if known else ''}one of your own, as module:object"
        raise PydanticCustomError("part", wanted)

    return PartOf(check, choices, kind)


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
