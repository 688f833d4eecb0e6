"""How every config class is made: a frozen keyword-only pydantic dataclass that refuses unknown keys."""

import dataclasses
from typing import Annotated, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

__all__ = ["Annotated", "Field", "Size", "config", "size"]

Size = int | tuple[int, int]
T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
def config(cls: type[T]) -> type[T]:
    """Class decorator for every group of options."""
    _move_bounds_into_annotations(cls)
    options = ConfigDict(extra="forbid", allow_inf_nan=False)
    return dataclass(cls, kw_only=True, frozen=True, config=options)  # type: ignore[call-overload, no-any-return]


def _move_bounds_into_annotations(cls: type) -> None:
    """Leave plain defaults behind: tyro would take a `Field(...)` itself for the default."""
    for name, annotation in list(cls.__annotations__.items()):
        field = cls.__dict__.get(name)
        if not isinstance(field, FieldInfo):
            continue
        if field.metadata:
            cls.__annotations__[name] = Annotated[annotation, *field.metadata]
        if field.default_factory is not None:
            setattr(cls, name, dataclasses.field(default_factory=field.default_factory))  # type: ignore[arg-type]
        elif field.default is PydanticUndefined:
            delattr(cls, name)
        else:
            setattr(cls, name, field.default)


def size(value: Size) -> tuple[int, int]:
    """(height, width) of a size written as one number or two."""
    return (value, value) if isinstance(value, int) else value
