"""TIFF files beyond what Pillow reads right: deep, floating-point, planar, of many bands, of many pages.

What several pages are:

- Pages of grey, as many as the channels asked for, are its bands. Any other number of them is refused.
- Where the file says that they are points in time or depth (OME, ImageJ), or where each is a picture in colours, they
  are frames, and the first is taken, as of animations. Smaller copies, masks and pages of another kind are passed by.
- An array that tifffile kept as pages of rows, [H, W, C] of the channels asked for, is that array.

In a picture in colours (RGB) a fourth sample that is no alpha is left out where one to three channels are asked for.

Legend: H W pixels, S samples a pixel, P pages that are bands.
"""

import io
import logging
import math
import struct
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from maekit.data.arrays import SAMPLES, Colours, Pixels, Range, Stored, coloured, guard, scaled, stored
from maekit.errors import ImageError

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_DENSEST = 10_000  # values that a byte of a compressed array can stand for: many times what deflate and LZW reach
_ORIENTATION = "Orientation"
_WHITE, _BLACK, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8  # what PhotometricInterpretation says
_COLOURS: dict[int, Colours] = {_WHITE: "grey", _BLACK: "grey", _RGB: "rgb", _PALETTE: "rgb", _CMYK: "cmyk"}
_PREMULTIPLIED, _ALPHA = 1, 2  # what ExtraSamples says
_LZW = 5
_DEFLATE = (8, 32946)

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it finds odd is judged here


def read(data: bytes, channels: int, max_pixels: int, value_range: Range | None) -> tuple[Pixels, int] | None:
    """Pixels [H, W, C], uint8 or float32 in [0, 1], and the orientation they are kept in.

    None for an ordinary picture of eight bits or fewer, which Pillow reads right. Raises ImageError, or what tifffile
    raises of a damaged file.
    """
    found = _open(data, channels, max_pixels)
    if found is None:
        return None
    values, page = found
    tag = page.tags.get(_ORIENTATION)
    return _pixels(values, page, channels, value_range), 1 if tag is None else int(tag.value)


def read_stored(data: bytes, channels: int, max_pixels: int) -> Stored | None:
    """Values as they are kept, where `read` would not be None. Raises what `read` raises."""
    found = _open(data, channels, max_pixels)
    if found is None:
        return None
    (values, bits), page = _looked_up(*found), found[1]
    colours, extra = _COLOURS.get(_photometric(page)), tuple(map(int, page.extrasamples))[:1]
    own = SAMPLES[colours] if colours else values.shape[2]
    alpha = values.shape[2] == own + 1 and extra in ((_PREMULTIPLIED,), (_ALPHA,))
    return stored(values[..., :own] if alpha else values, bits=bits)


def _open(data: bytes, channels: int, max_pixels: int) -> tuple[Pixels, Any] | None:
    """Stored values [H, W, S] and the page that describes them; None for what Pillow reads right."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        if page.dtype is None or page.imagelength < 1 or page.imagewidth < 1:
            raise ImageError("a TIFF without an image on its first page")
        series = next((one for one in file.series if one.keyframe.index == page.index), file.series[0])
        bands = _bands(series)
        if bands == 1 and channels in (1, 3, 4) and _is_ordinary(page, channels):
            return None
        guard(page.imagelength, page.imagewidth, max_pixels, bands * page.samplesperpixel)
        _check_segments(series, bands, data)
        try:
            return _values(series, page, bands, channels), page
        except (ValueError, NotImplementedError, KeyError) as error:
            raise _explained(error, page) from error


def mode(data: bytes) -> str:
    """How the first page is kept, in short: `TIFF uint16 x12`."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        return f"TIFF {page.dtype} x{max(_bands(file.series[0]), page.samplesperpixel)}"


def _bands(series: Any) -> int:
    """Pages of grey that are no frames; 1 for a file of one page, or of pages in colours."""
    if series.keyframe.photometric in (_RGB, _PALETTE, _CMYK, _YCBCR, _LAB):
        return 1
    others = "YXS" + _frames(series)
    return math.prod(size for axis, size in zip(series.axes, series.shape, strict=True) if axis not in others)


def _frames(series: Any) -> str:
    """Axes of which the first is taken."""
    return "TZ" if series.kind in ("ome", "imagej") else ""


def _is_ordinary(page: Any, channels: int) -> bool:
    bits = max(page.bitspersample) if isinstance(page.bitspersample, tuple) else page.bitspersample
    samples, extra = page.samplesperpixel, tuple(map(int, page.extrasamples))
    if bits > 8 or page.sampleformat != 1 or (samples > 1 and page.planarconfig != 1):
        return False
    photometric = _photometric(page)
    if bits == 8 and page.compression in _DEFLATE and photometric in (_WHITE, _BLACK, _RGB):
        return False  # libtiff does not look at deflate's checksum
    if photometric in (_WHITE, _BLACK):
        return samples == 1 or (samples == 2 and extra[:1] in ((_PREMULTIPLIED,), (_ALPHA,)))
    if photometric == _RGB:
        return samples == 3 or (samples == 4 and channels != 4)
    return samples <= {_PALETTE: 1, _CMYK: 4, _YCBCR: 3, _LAB: 3}.get(photometric, 0)


def _check_segments(series: Any, bands: int, data: bytes) -> None:
    """Raises ImageError where parts of the picture are missing, which tifffile would fill with zeros."""
    page = series.keyframe
    size = page.imagelength * page.imagewidth * page.samplesperpixel * bands
    if size > _DENSEST * len(data):
        raise ImageError(f"truncated: {len(data)} bytes cannot hold {page.imagewidth}x{page.imagelength} pixels")
    pages = [one for one in series.pages if one is not None]
    for one in pages[: bands if bands > 1 else 1]:
        parts = zip(one.dataoffsets, one.databytecounts, strict=False)
        if any(count <= 0 or offset <= 0 or offset + count > len(data) for offset, count in parts):
            raise ImageError("truncated: parts of the TIFF's pixels are not in it")


def _values(series: Any, page: Any, bands: int, channels: int) -> Pixels:
    """Stored values [H, W, S]."""
    if bands > 1:
        array = series.asarray(maxworkers=1)
        frames = _frames(series)
        array = array[tuple(0 if axis in frames else slice(None) for axis in series.axes)]
        axes = "".join(axis for axis in series.axes if axis not in frames)
        if bands != channels and series.kind == "shaped" and array.squeeze().ndim == 3 and array.shape[-1] == channels:
            return array.squeeze()
        array = array.reshape(bands, page.imagelength, page.imagewidth, -1)
        if array.shape[-1] != 1 or not axes.endswith(("YX", "YXS")):
            raise ImageError(
                f"pages that make an array of shape {array.shape}, where {channels} channels are asked for"
            )
        if bands != channels:
            raise ImageError(
                f"{bands} channels, {channels} are asked for; they are pages of grey: --model.channels {bands} takes "
                f"all (maekit data --channels {bands}), or keep one page a file"
            )
        return array[..., 0].transpose(1, 2, 0)
    array = page.asarray(maxworkers=1)
    array = array.reshape([size for axis, size in zip(page.axes, page.shape, strict=True) if axis in "YXS"])
    kept = "".join(axis for axis in page.axes if axis in "YXS")
    if "S" not in kept:
        return array[:, :, None]
    return array.transpose([kept.index(axis) for axis in "YXS"])


def _photometric(page: Any) -> int:
    return int(page.photometric if page.photometric is not None else _BLACK)


def _looked_up(values: Pixels, page: Any) -> tuple[Pixels, int | None]:
    """Values with palettes replaced by their colours, and the bits they have, where they are unsigned integers."""
    if _photometric(page) == _PALETTE and page.colormap is not None:
        return page.colormap[:, values[..., 0]].transpose(1, 2, 0), 16
    return values, page.bitspersample if isinstance(page.bitspersample, int) and values.dtype.kind == "u" else None


def _pixels(values: Pixels, page: Any, channels: int, value_range: Range | None) -> Pixels:
    """Pixels [H, W, C] of stored values [H, W, S]."""
    photometric = _photometric(page)
    values, bits = _looked_up(values, page)
    samples, colours = values.shape[2], _COLOURS.get(photometric)
    own = SAMPLES[colours] if colours else samples
    extra = tuple(map(int, page.extrasamples))[:1]
    is_alpha = samples == own + 1 and extra in ((_PREMULTIPLIED,), (_ALPHA,))
    colour = scaled(values[..., :own], value_range, bits=bits)
    if photometric == _WHITE:
        colour = 255 - colour if colour.dtype == np.uint8 else 1 - colour
    if samples == channels and colours != "cmyk":
        if samples == own:
            return colour
        return np.concatenate([colour, scaled(values[..., own:], None if is_alpha else value_range, bits=bits)], axis=2)
    left_out = samples == own + 1 and colours == "rgb"
    if channels not in (1, 3, 4) or colours is None or not (samples == own or is_alpha or left_out):
        raise ImageError(
            f"{samples} channel{'s' * (samples > 1)}, {channels} are asked for; --model.channels {samples} takes what "
            f"is there (maekit data --channels {samples})"
        )
    alpha = scaled(values[..., own:], bits=bits) if is_alpha else None
    return coloured(colour, colours, channels, alpha=alpha, premultiplied=extra == (_PREMULTIPLIED,))


def _explained(error: Exception, page: Any) -> Exception:
    if "imagecodecs" not in str(error):
        return error
    name = getattr(page.compression, "name", str(page.compression)).lower()
    what = f"compressed by {name}" if page.compression != 1 else f"with values of {page.bitspersample} bits"
    return ImageError(f"a TIFF {what}, which needs imagecodecs: pip install 'maekit[tiff]'")


def _lzw(encoded: bytes, *, out: int) -> NDArray[np.uint8]:
    """So many bytes of LZW, by Pillow's libtiff, as tifffile has none of its own: a picture of one row."""
    entries = [(256, 4, out), (257, 4, 1), (258, 3, 8), (259, 3, _LZW), (262, 3, 1), (273, 4, 8), (277, 3, 1),
               (278, 4, 1), (279, 4, len(encoded))]  # fmt: skip
    tail = struct.pack("<H", len(entries))
    tail += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries) + b"\0" * 4
    padding = b"\0" * (len(encoded) % 2)
    content = b"II*\0" + struct.pack("<I", 8 + len(encoded) + len(padding)) + encoded + padding + tail
    with Image.open(io.BytesIO(content), formats=("TIFF",)) as row:
        return np.asarray(row)[0]


try:
    tifffile.TIFF.DECOMPRESSORS[_LZW]
except KeyError:
    tifffile.TIFF.DECOMPRESSORS._codecs[_LZW] = _lzw
