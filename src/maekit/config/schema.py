"""How every config class is made: a frozen keyword-only pydantic dataclass that refuses unknown keys."""

from typing import Annotated, TypeVar, dataclass_transform

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

__all__ = ["POSITIVE", "RISING", "WIDE", "Annotated", "Field", "Size", "config", "size"]

T = TypeVar("T")
Size = int | tuple[int, int]


@dataclass_transform(kw_only_default=True, frozen_default=True)
def config(cls: type[T]) -> type[T]:
    """Class decorator for every group of options.

    Bounds stand in the annotation, `Annotated[int, Field(ge=1)]`, so that defaults stay plain values, as tyro needs.
    """
    options = ConfigDict(extra="forbid", allow_inf_nan=False)
    return dataclass(cls, kw_only=True, frozen=True, config=options)  # type: ignore[return-value]


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
