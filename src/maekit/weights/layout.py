"""What a layout of weights must offer, and renaming, which is most of what layouts differ in.

A further layout is one file with one object of this protocol, and one line in `maekit.weights.load`.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar

from maekit.config.verbs import WeightsOptions
from maekit.weights.blueprint import Blueprint
from maekit.weights.stored import Stored

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

Prefixes = tuple[tuple[str, str], ...]
"""(theirs, ours), the first that fits is replaced; the empty one fits all."""


class Layout(Protocol):
    """A way in which tensors are named and described. Nothing here needs torch but `tensors`."""

    name: str

    def recognises(self, stored: Stored) -> bool:
        """Whether the names of the tensors are this layout's."""

    def describe(self, stored: Stored, options: WeightsOptions) -> Blueprint:
        """The model that the tensors are of. Raises WeightsError where maekit has no such model."""

    def tensors(self, stored: Stored, blueprint: Blueprint) -> "dict[str, Tensor]":
        """All tensors but the ignored ones, under maekit's own names."""


def to_ours(name: str, prefixes: Prefixes) -> str:
    return _replaced(name, prefixes)


def to_theirs(name: str, prefixes: Prefixes) -> str:
    return _replaced(name, ((ours, theirs) for theirs, ours in prefixes))


def renamed(named: Mapping[str, T], prefixes: Prefixes, *, ignored: Iterable[str] = ()) -> dict[str, T]:
    """The values under maekit's own names, without the ignored ones."""
    left_out = set(ignored)
    return {to_ours(name, prefixes): value for name, value in named.items() if name not in left_out}


def _replaced(name: str, prefixes: Iterable[tuple[str, str]]) -> str:
    for before, after in prefixes:
        if name.startswith(before):
            return after + name.removeprefix(before)
    return name
