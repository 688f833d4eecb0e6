"""JSON as its standard has it: a number that is not finite, for which it has no word, becomes null."""

import json
import math
from collections.abc import Mapping
from typing import Any


def dumps(values: Any, *, indent: int | None = None) -> str:
    """The text of plain nested values; NaN and infinities, at any depth, are null."""
    return json.dumps(finite(values), indent=indent, allow_nan=False)


def finite(values: Any) -> Any:
    """The values with None in place of each float that is not finite."""
    if isinstance(values, float):
        return values if math.isfinite(values) else None
    if isinstance(values, Mapping):
        return {name: finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    return values
