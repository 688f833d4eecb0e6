"""Names that stand for several files: wildcards and braces."""

import re
from itertools import product
from pathlib import Path

from maekit.errors import DataError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST_SHARDS = 1_000_000


def matching(path: Path) -> list[Path]:
    """Files that a path with braces or wildcards stands for; none for a path without."""
    if "{" in path.name:
        return [path.with_name(name) for name in expand(path.name)]
    if not set("*?[") & set(path.name):
        return []
    return sorted(file for file in path.parent.glob(path.name) if not file.name.startswith("."))


def expand(name: str) -> list[str]:
    """The names that `a-{000..099}.tar` or `a-{x,y}.tar` stands for. Raises DataError for braces it cannot read."""
    pieces = _BRACES.split(name)  # every second one stood in braces
    choices = [[piece] if place % 2 == 0 else _choices(piece, name) for place, piece in enumerate(pieces)]
    return ["".join(parts) for parts in product(*choices)]


def _choices(inside: str, name: str) -> list[str]:
    numbers = _RANGE.fullmatch(inside)
    if not numbers:
        return inside.split(",")
    first, last = int(numbers[1]), int(numbers[2])
    if not 0 <= last - first < _MOST_SHARDS:
        raise DataError(f"{name}: {{{inside}}} does not count upwards from the first shard to the last")
    return [str(number).zfill(len(numbers[1])) for number in range(first, last + 1)]
