"""Python objects where an option is text: images, weights, paths. A command line has text alone."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

from pydantic import BeforeValidator, WrapValidator
from pydantic_core import PydanticCustomError

from maekit.parts import name_of
from maekit.results import Run


class MapStyle(Protocol):
    """A data set whose items are asked for by number: of torch, of `datasets`, a list of paths, an array of images."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...


class Loaded(Protocol):
    """A model as `maekit.load` and training make them."""

    encoder: Any
    standardise: Any


Path = str | os.PathLike[str]
Source = Path | MapStyle
"""What a verb takes where it takes a SOURCE."""


class Given(str):
    """What is written of an object that stands where text belongs, and the object."""

    object: Any

    def __new__(cls, text: str, value: Any = None) -> "Given":
        given = super().__new__(cls, text)
        given.object = value
        return given

    def __deepcopy__(self, memo: Any) -> "Given":
        return self


def given_images(value: Any) -> Any:
    """A SOURCE as text: a path's own, or what is written of a map-style data set; anything else as it is."""
    value = named(value)
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        raise PydanticCustomError("source", "Input should be one data set, not {names} together", {"names": [*value]})
    if not (hasattr(value, "__len__") and hasattr(value, "__getitem__")):
        raise PydanticCustomError("source", "Input should be text, a path, or a data set with a length, item by item")
    return Given(f"<{_kind(value)}: {len(value)} images>", value)


def given_weights(value: Any) -> Any:
    """W as text: a path's own, a run's folder, or what is written of a model."""
    if isinstance(value, Run) and value.run is not None:
        return value.run
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if not isinstance(value, str) and hasattr(value, "encoder") and hasattr(value, "standardise"):
        return Given(f"<{type(value).__name__}>", value)
    return value


def named(value: Any) -> Any:
    """A class or function by the name under which `maekit.parts` finds it; anything else as it is."""
    return name_of(value) if isinstance(value, type) or hasattr(value, "__code__") else value


def _kind(value: Any) -> str:
    if isinstance(value, Sequence) and all(isinstance(item, str | os.PathLike) for item in value):
        return "ListOfPaths"
    return type(value).__name__


def _several(value: Any) -> Any:
    """One source, or several of them."""
    several = isinstance(value, list | tuple) and all(isinstance(item, str | os.PathLike | Given) for item in value)
    return tuple(value) if several else (value,)


def _some(value: Any) -> Any:
    """One W or path, or several of them."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _keeping(given: Callable[[Any], Any]) -> WrapValidator:
    """Text as pydantic takes it, which would make plain text of a Given."""

    def validate(value: Any, handler: Callable[[Any], Any]) -> Any:
        text = given(value)
        return text if isinstance(text, Given) else handler(text)

    return WrapValidator(validate)


def text(default: str | tuple[str, ...]) -> Any:
    """The default of an option of these types, which a type checker takes for any of them."""
    return default


if TYPE_CHECKING:
    Read = TypeVar("Read", covariant=True)
    Wider = TypeVar("Wider", contravariant=True)

    class _Option(Protocol[Read, Wider]):
        """For a type checker an option is of one type where it is read, and of a wider one where it is given."""

        def __get__(self, owner: Any, kind: Any) -> Read: ...
        def __set__(self, owner: Any, value: Wider) -> None: ...

    PathText = _Option[str, Path]
    SeveralPaths = _Option[tuple[str, ...], Path | Sequence[Path]]
    SeveralWeights = _Option[tuple[str, ...], Path | Run | Loaded | Sequence[Path | Run | Loaded]]
    Images = _Option[str, Source]
    SeveralImages = _Option[tuple[str, ...], Source | Sequence[Source]]
    Weights = _Option[str, Path | Run | Loaded]
else:
    PathText = Annotated[str, BeforeValidator(lambda v: os.fspath(v) if isinstance(v, os.PathLike) else v)]
    SeveralPaths = Annotated[tuple[PathText, ...], BeforeValidator(_some)]
    Images = Annotated[str, _keeping(given_images)]
    SeveralImages = Annotated[tuple[Images, ...], BeforeValidator(_several)]
    Weights = Annotated[str, _keeping(given_weights)]
    SeveralWeights = Annotated[tuple[Weights, ...], BeforeValidator(_some)]
