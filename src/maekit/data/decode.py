"""From encoded bytes to pixels, by one policy for training, evaluation, inference and the app.

- Orientation: EXIF's is applied, so people see what they took.
- Colour: palettes are looked up; CMYK, YCbCr and the like become RGB by Pillow's plain formulas; grey becomes RGB by
  repetition and RGB becomes grey by ITU-R 601 luma. Colour profiles are not applied.
- Alpha is composed over white, unless four channels are asked for: then it is the fourth (255 where there is none).
- 16-bit grey is scaled, so that mid-grey is 128; floating-point grey is taken to span 0 to 1.
- Animations give their first frame.
- `.npy`, and `.tif` for other counts than 1 or 3 channels, hold arrays [H, W], [H, W, C] or [C, H, W] of exactly the
  channels asked for; more than 8 bits stay float32 in [0, 1].
- An image of more than MAX_PIXELS is refused from its header. A truncated one is refused, never padded.

Pillow is the truth. simplejpeg, where installed, decodes ordinary JPEGs to the same pixels, faster.
"""

import io
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from maekit.errors import ImageError

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

MAX_PIXELS = 178_956_970
"""Height times width that is decoded at most: where Pillow itself stops, 13,377 pixels square."""
MAX_VALUES = 4 * MAX_PIXELS
"""Height times width times channels of an array that is decoded at most."""
BACKGROUND = (255, 255, 255, 255)
"""What shows through transparent pixels."""

Pixels = NDArray[Any]

# Others that Pillow knows are left out: some start programs (EPS), none holds photographs.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
_ORIENTATION = 0x0112  # the EXIF tag
_SAMPLES_PER_PIXEL = 277  # the TIFF tag
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NPY = b"\x93NUMPY"
_DENSEST = 10_000  # values that a byte of a compressed array can stand for: many times what deflate and LZW reach


def decode(data: bytes | Pixels, channels: int, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Pixels of one image, by the policy above.

    data: the encoded file, or an array as `.npy` would hold. Returns [C, H, W] uint8, or float32 in [0, 1] for arrays
    of more than 8 bits. Raises ImageError with the reason, and nothing else, whatever the bytes.
    """
    try:
        pixels = np.require(_decode(data, channels, max_pixels), requirements=("C", "W"))
    except ImageError:
        raise
    except Exception as error:  # decoders raise SyntaxError, struct.error, EOFError and more on damaged files
        raise ImageError(_reason(error)) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def stored_mode(data: bytes | Pixels) -> str:
    """How an image that can be decoded is kept, in short: `JPEG RGB`, `PNG I;16`, `npy uint16`, `array uint8`."""
    if isinstance(data, np.ndarray):
        return f"array {data.dtype}"
    if data.startswith(_NPY):
        return f"npy {_npy_header(io.BytesIO(data))[2]}"
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            return f"{image.format} {image.mode}"
    except UnidentifiedImageError:
        return "TIFF of many channels"


def _decode(data: bytes | Pixels, channels: int, max_pixels: int) -> Pixels:
    """Pixels [H, W, C]."""
    if isinstance(data, np.ndarray):
        return _from_array(data, channels)
    if not data:
        raise ImageError("the file is empty")
    if data.startswith(_NPY):
        return _from_array(_read_npy(data, max_pixels), channels)
    if channels not in (1, 3) and data.startswith(_TIFF) and not (channels == 4 and _is_picture(data)):
        return _read_tiff(data, channels, max_pixels)
    if channels not in (1, 3, 4):
        raise ImageError(f"such a file cannot hold {channels} channels; keep these images as .npy or .tif")
    return _read_picture(data, channels, max_pixels)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format, or damaged where it begins"
    if isinstance(error, MemoryError):
        return "too large for the memory of this machine"
    return " ".join(str(error).split()) or type(error).__name__


def _guard(height: int, width: int, max_pixels: int, channels: int = 1) -> None:
    if height < 1 or width < 1:
        raise ImageError(f"has no pixels ({width}x{height})")
    if height * width > max_pixels or height * width * channels > MAX_VALUES:
        raise ImageError(f"{width}x{height} pixels are more than the {max_pixels:,} that are decoded at most")


def _read_picture(data: bytes, channels: int, max_pixels: int) -> Pixels:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        _guard(image.height, image.width, max_pixels)
        if image.format == "TIFF":
            image.load()  # which turns the picture itself, and forgets its orientation
        orientation = _orientation(image)
        pixels = _fast_jpeg(data, image, channels)
        if pixels is None:
            pixels = np.asarray(_in_colours(image, channels))
    return _oriented(pixels if pixels.ndim == 3 else pixels[:, :, None], orientation)


def _is_picture(data: bytes) -> bool:
    """Whether Pillow knows a TIFF as something that becomes four channels by the policy, not as an array of four."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            samples = getattr(image, "tag_v2", {}).get(_SAMPLES_PER_PIXEL, 1)
            return image.mode == "CMYK" or samples < 4
    except UnidentifiedImageError:
        return False


def _fast_jpeg(data: bytes, image: Image.Image, channels: int) -> Pixels | None:
    """simplejpeg's pixels of a JPEG in RGB, [H, W, 3]; None where Pillow has to decide."""
    if simplejpeg is None or channels != 3 or image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return None
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False, strict=True)
    except ValueError:  # damaged, or only odd
        return None
    return pixels


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF comes as SyntaxError, struct.error, ValueError ...; the pixels may be sound
        return 1


def _oriented(pixels: Pixels, orientation: int) -> Pixels:
    """Pixels [H, W, C] as the viewer should see them; EXIF orientations 1 to 8, others count as 1."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _in_colours(image: Image.Image, channels: int) -> Image.Image:
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    if image.mode in _SIXTEEN_BIT or image.mode == "F":
        image = Image.fromarray(_eight_bit_grey(np.asarray(image)))
    elif image.mode in ("RGBa", "La"):  # premultiplied: Pillow converts these to their plain form only
        image = image.convert(image.mode.upper())
    if image.has_transparency_data and channels != 4:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image)
    if mode == "L" and image.mode not in ("1", "L"):
        image = image.convert("RGB")  # some modes have no way to grey but this
    return image.convert(mode)


def _eight_bit_grey(values: Pixels) -> NDArray[np.uint8]:
    if values.dtype.kind == "f":
        return np.rint(_unit_interval(values) * 255).astype(np.uint8)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageError(f"grey values from {low} to {high}; 16 bits, 0 to 65535, are the most that is understood")
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _unit_interval(values: Pixels) -> NDArray[np.float32]:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # refuses NaN too
        raise ImageError(f"floating-point values from {low:g} to {high:g}; they have to lie in [0, 1]")
    return values.astype(np.float32)


def _npy_header(file: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and type; the file is left at the values."""
    if np.lib.format.read_magic(file) == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def _read_npy(data: bytes, max_pixels: int) -> Pixels:
    """The array of a .npy file, without copying, once its header agrees with its length."""
    file = io.BytesIO(data)
    shape, fortran_order, dtype = _npy_header(file)
    if dtype.hasobject or dtype.kind not in "buf":
        raise ImageError(f"an array of {dtype}; unsigned integers of 8 or 16 bits, or floating point, are understood")
    count = int(np.prod(shape, dtype=object)) if shape else 1
    if len(data) - file.tell() < count * dtype.itemsize:
        raise ImageError(f"truncated: {len(data)} bytes cannot hold an array of shape {shape}")
    if len(shape) in (2, 3):
        *channels, height, width = sorted(shape)  # whichever axis holds the channels, it is the shortest
        _guard(height, width, max_pixels, *channels)
    values = np.frombuffer(data, dtype, count, file.tell())
    return values.reshape(shape, order="F" if fortran_order else "C")


def _read_tiff(data: bytes, channels: int, max_pixels: int) -> Pixels:
    try:
        import tifffile
    except ImportError:
        raise ImageError("a .tif file of many channels needs tifffile: pip install 'maekit[tiff]'") from None
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        series = file.series[0]
        page = series.keyframe
        _guard(page.imagelength, page.imagewidth, max_pixels, series.size // (page.imagelength * page.imagewidth or 1))
        if series.size > _DENSEST * len(data):
            raise ImageError(f"truncated: {len(data)} bytes cannot hold an array of shape {series.shape}")
        pixels = _from_array(series.asarray().squeeze(), channels)
        tag = page.tags.get(_ORIENTATION)
    return _oriented(pixels, 1 if tag is None else int(tag.value))


def _from_array(values: Pixels, channels: int) -> Pixels:
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
            raise ImageError(f"an array of shape {values.shape}, where {channels} channels are asked for")
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return values.astype(np.float32) / 65535
    if values.dtype.kind == "f":
        return _unit_interval(values)
    raise ImageError(
        f"an array of {values.dtype}; unsigned integers of 8 or 16 bits, or floating point, are understood"
    )
