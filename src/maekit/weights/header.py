"""What stands at the head of a .safetensors file, read without torch: names, shapes, number formats, metadata.

The layout: 8 bytes little-endian length, that much JSON, then the tensors' bytes. Every number is checked before it is
believed, and no tensor is read.
"""

import json
import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from maekit.errors import WeightsError

_LARGEST = 100 << 20  # the format's own limit


@dataclass(frozen=True)
class Header:
    """shapes and dtypes (safetensors' own names, such as F32) by tensor name; metadata: strings by name."""

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    metadata: dict[str, str]


def read(path: Path) -> Header:
    """The header of a .safetensors file. Raises WeightsError, in one line, where it is not one or is cut short."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(_LARGEST, size - 8):
                raise WeightsError(f"{path}: is no .safetensors file, or only the beginning of one")
            text = file.read(length)
        return _parse(json.loads(text), size - 8 - length)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise WeightsError(f"{path}: the header of this .safetensors file is damaged") from None
    except EOFError:
        raise WeightsError(f"{path}: is cut short: tensors that its header lists are not all there") from None


def _parse(values: dict[str, Any], data: int) -> Header:
    metadata = values.pop("__metadata__", {})
    if not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError
    shapes, dtypes = {}, {}
    for name, entry in values.items():
        shape, (begin, end) = entry["shape"], entry["data_offsets"]
        if any(type(number) is not int or number < 0 for number in (*shape, begin, end)):
            raise ValueError
        dtype = str(entry["dtype"])
        bits = re.search(r"\d+", dtype)  # F32, BF16, F8_E4M3; BOOL takes a byte
        if (end - begin) * 8 != prod(shape) * int(bits[0] if bits else 8):
            raise ValueError
        if end > data:
            raise EOFError
        shapes[name], dtypes[name] = tuple(shape), dtype
    return Header(shapes, dtypes, dict(metadata))
