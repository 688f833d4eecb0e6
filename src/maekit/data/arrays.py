"""From arrays of any depth to pixels: .npy files, what each type of number stands for, and what makes colours of them.

Legend: H W pixels, S samples a pixel as they are kept, C channels asked for.
"""

import io
import math
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maekit.errors import ImageError

Pixels = NDArray[Any]
Range = tuple[float, float]
"""The stored values that become 0 and 1; what lies beyond is clipped."""
Colours = Literal["grey", "rgb", "cmyk"]
SAMPLES: dict[Colours, int] = {"grey": 1, "rgb": 3, "cmyk": 4}
"""How many samples a pixel's colour takes."""


class Stored(NamedTuple):
    """An image's values as its file keeps them, of any shape, without alpha."""

    values: Pixels
    full: float
    """What its type stands for white: 255, 65535, 1 for floating point; the largest number of other integers."""


MAX_PIXELS = 178_956_970
"""Height times width that is decoded at most: where Pillow itself stops, 13,377 pixels square."""
MAX_VALUES = 4 * MAX_PIXELS
"""Height times width times channels of an array that is decoded at most."""
NPY = b"\x93NUMPY"

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601
_WHAT_TO_DO = "say what is black and what is white: --data.range LOW HIGH, or --data.range measured"


def guard(height: int, width: int, max_pixels: int, channels: int = 1) -> None:
    """Raises ImageError, before anything is allocated, for an image without pixels or of too many."""
    if height < 1 or width < 1:
        raise ImageError(f"has no pixels ({width}x{height})")
    if height * width > max_pixels or height * width * channels > MAX_VALUES:
        raise ImageError(f"{width}x{height} pixels are more than the {max_pixels:,} that are decoded at most")


def npy_header(file: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and type; the file is left at the values."""
    if np.lib.format.read_magic(file) == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def read_npy(data: bytes, max_pixels: int) -> Pixels:
    """The array of a .npy file, without copying, once its header agrees with its length."""
    file = io.BytesIO(data)
    shape, fortran_order, dtype = npy_header(file)
    if dtype.hasobject or dtype.kind not in "biuf":
        raise ImageError(f"an array of {dtype}; unsigned integers of 8 or 16 bits, or floating point, are understood")
    count = math.prod(shape)
    if len(data) - file.tell() < count * dtype.itemsize:
        raise ImageError(f"truncated: {len(data)} bytes cannot hold an array of shape {shape}")
    if len(shape) in (2, 3):
        *channels, height, width = sorted(shape)  # whichever axis holds the channels, it is the shortest
        guard(height, width, max_pixels, *channels)
    return np.frombuffer(data, dtype, count, file.tell()).reshape(shape, order="F" if fortran_order else "C")


def from_array(values: Pixels, channels: int, value_range: Range | None = None) -> Pixels:
    """Pixels [H, W, C], uint8 or float32 in [0, 1], of an array that has the channels first, last, or not at all."""
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or not values.size:
        raise ImageError(f"an array of shape {values.shape}; [H, W], [H, W, C] or [C, H, W] are understood")
    if values.shape[-1] != channels:
        if values.shape[0] == channels:
            values = values.transpose(1, 2, 0)
        elif channels == 3 and values.shape[-1] == 1:
            values = values.repeat(3, axis=2)
        elif channels == 1 and values.shape[-1] == 3 and values.dtype == np.uint8:
            values = np.asarray(Image.fromarray(np.ascontiguousarray(values)).convert("L"))[:, :, None]
        else:
            raise ImageError(
                f"an array of shape {values.shape}, where {channels} channels are asked for (--model.channels; "
                "maekit data --channels)"
            )
    return scaled(values, value_range)


def scaled(values: Pixels, value_range: Range | None = None, *, bits: int | None = None) -> Pixels:
    """Stored values of any shape as uint8, or as float32 in [0, 1].

    value_range: what becomes 0 and 1, for values of any type; the result is then float32. None: the whole range of
    unsigned integers of `bits` bits (their type's, where it is None), and [0, 1] of floating-point numbers. Raises
    ImageError for other types, and for values outside of [0, 1].
    """
    if value_range is not None and values.dtype.kind in "biuf":
        return _in_range(values, value_range)
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.dtype == np.uint8 and bits in (None, 8):
        return values
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        return values.astype(np.float32) / np.float32(2 ** (bits or 16) - 1)
    if values.dtype.kind == "f":
        return _unit_interval(values)
    if values.dtype.kind in "iu":
        raise ImageError(
            f"integers of {values.dtype}, from {int(values.min())} to {int(values.max())}; unsigned ones of 8 or 16 "
            f"bits and floating point are understood; of others, {_WHAT_TO_DO}"
        )
    raise ImageError(f"an array of {values.dtype}; integers and floating point are understood")


def _in_range(values: Pixels, value_range: Range) -> NDArray[np.float32]:
    low, high = value_range
    spread: Pixels = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    spread -= low
    spread /= high - low
    if values.dtype.kind == "f" and np.isnan(spread).any():
        raise ImageError("holds values that are no numbers (NaN)")
    return np.clip(spread, 0, 1, out=spread).astype(np.float32, copy=False)


def _unit_interval(values: Pixels) -> NDArray[np.float32]:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # refuses NaN too
        what = "" if np.isnan(low) else f", or else {_WHAT_TO_DO}"
        raise ImageError(f"floating-point values from {low:g} to {high:g}; they have to lie in [0, 1]{what}")
    return values.astype(np.float32)


def stored(values: Pixels, *, bits: int | None = None) -> Stored:
    """Values with what would be white among them."""
    if values.dtype == bool:
        return Stored(values.astype(np.uint8), 1)
    if values.dtype.kind in "iu":
        return Stored(values, 2**bits - 1 if bits and values.dtype.kind == "u" else int(np.iinfo(values.dtype).max))
    return Stored(values, 1)


def coloured(
    values: Pixels, colours: Colours, channels: int, *, alpha: Pixels | None = None, premultiplied: bool = False
) -> Pixels:
    """One, three or four channels of a picture, by the policy of `maekit.data.decode`.

    values: [H, W, 1], [H, W, 3] or [H, W, 4] in those colours; alpha: [H, W, 1] where there is one; uint8 or float32 in
    [0, 1]. Returns [H, W, C]: uint8 where all that came was.
    """
    small = values.dtype == np.uint8 and (alpha is None or alpha.dtype == np.uint8)
    colour = _unit(values)
    if colours == "cmyk":
        colour = (1 - colour[..., :3]) * (1 - colour[..., 3:])
    shown = None if alpha is None else _unit(alpha)
    if shown is not None and channels != 4:
        colour = (colour if premultiplied else colour * shown) + (1 - shown)
    elif shown is not None and premultiplied:
        colour = np.clip(colour / np.maximum(shown, 1e-6), 0, 1)
    if channels == 1 and colour.shape[-1] == 3:
        colour = (colour @ _LUMA)[..., None]
    elif channels != 1 and colour.shape[-1] == 1:
        colour = colour.repeat(3, axis=2)
    if channels == 4:
        colour = np.concatenate([colour, np.ones_like(colour[..., :1]) if shown is None else shown], axis=2)
    return np.rint(np.clip(colour, 0, 1) * 255).astype(np.uint8) if small else np.clip(colour, 0, 1)


def _unit(values: Pixels) -> NDArray[np.float32]:
    return values.astype(np.float32) / np.float32(255) if values.dtype == np.uint8 else values
