"""From encoded bytes to pixels, by one policy for training, evaluation, inference and the app.

- Orientation: EXIF's is applied, so people see what they took.
- Colour: palettes are looked up; CMYK, YCbCr and the like become RGB by Pillow's plain formulas; grey becomes RGB by
  repetition and RGB becomes grey by ITU-R 601 luma. Colour profiles are not applied.
- Alpha is composed over white, unless four channels are asked for: then it is the fourth (255 where there is none).
- Depth: 8 bits stay bytes. More become float32 in [0, 1], 0 to 65535 (of 12 bits that say so: 4095) spanning it, so
  mid-grey is half; floating-point values have to lie in [0, 1] already. With a range, its two stored values become 0
  and 1 instead, whatever the type, before anything is cut to fewer bits; what lies beyond is clipped. Alpha has none.
- Animations give their first frame; what the pages of a TIFF are, `maekit.data.tiff` says.
- `.npy`, and `.tif` of bands, hold arrays [H, W], [H, W, C] or [C, H, W] of exactly the channels asked for.
- An image of more than MAX_PIXELS is refused from its header. A truncated one is refused, never padded; one whose
  checksums (PNG, deflate) or data (JPEG; `maekit.data.jpeg` says how much is seen) are wrong is refused as damaged.

Pillow is the truth. simplejpeg decodes ordinary JPEGs to the same pixels, faster, and tells what is damaged; tifffile
reads TIFFs that Pillow reads wrong or not at all, torchvision PNGs in colours of 16 bits.

`decode_reduced` has JPEGs in grey and RGB decoded at a half, a quarter or an eighth of their size, by their own
transform (DCT): all their data are read, so damage is noticed as ever, but fewer pixels are made of them.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from maekit.data import arrays, jpeg, png, tiff
from maekit.data.arrays import MAX_PIXELS, MAX_VALUES, NPY, Colours, Pixels, Range, Stored
from maekit.data.reduced import Factor, Reduced, Reduction
from maekit.errors import ImageError

try:
    import simplejpeg
except ImportError:  # no wheel, and nothing to build it with
    simplejpeg = None

__all__ = [
    "MAX_PIXELS", "MAX_VALUES", "Range", "decode", "decode_reduced", "explained", "is_turned", "stored_mode",
    "stored_values",
]  # fmt: skip

BACKGROUND = (255, 255, 255, 255)
"""What shows through transparent pixels."""

# Others that Pillow knows are left out: some start programs (EPS), none holds photographs.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
_ORIENTATION = 0x0112  # the EXIF tag
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_SPACES = {"RGB": "RGB", "L": "RGB", "CMYK": "CMYK"}  # of Pillow's modes of a JPEG


def decode(
    data: bytes | Pixels, channels: int, *, max_pixels: int = MAX_PIXELS, value_range: Range | None = None
) -> Tensor:
    """Pixels of one image, by the policy above.

    data: the encoded file, or an array as `.npy` would hold. value_range: the stored values that become 0 and 1.
    Returns [C, H, W] uint8, or float32 in [0, 1] for more than 8 bits and with a range. Raises ImageError with the
    reason, and nothing else, whatever the bytes.
    """
    found = _guarded(data, channels, max_pixels, value_range, None)
    return found.pixels if isinstance(found, Reduced) else found


def decode_reduced(
    data: bytes | Pixels, channels: int, factor: Factor, *, value_range: Range | None = None
) -> Tensor | Reduced:
    """`decode`, or where the image is a JPEG, `factor` allows it and there is no range: fewer pixels of it."""
    return _guarded(data, channels, MAX_PIXELS, value_range, factor)


def _guarded(
    data: bytes | Pixels, channels: int, max_pixels: int, value_range: Range | None, factor: Factor | None
) -> Tensor | Reduced:
    with explained():
        pixels, reduction = _decode(data, channels, max_pixels, value_range, factor)
        image = torch.from_numpy(np.require(pixels, requirements=("C", "W"))).permute(2, 0, 1)
    return image if reduction is None else Reduced(image, reduction)


@contextmanager
def explained() -> Iterator[None]:
    """Inside the block whatever a decoder raises becomes an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:  # SyntaxError, struct.error, EOFError and more, of damaged files
        raise ImageError(_reason(error)) from error


def stored_mode(data: bytes | Pixels) -> str:
    """How an image that can be decoded is kept, in short: `JPEG RGB`, `PNG I;16`, `npy uint16`, `array uint8`."""
    if isinstance(data, np.ndarray):
        return f"array {data.dtype}"
    if data.startswith(NPY):
        return f"npy {arrays.npy_header(io.BytesIO(data))[2]}"
    if data.startswith(tiff.MAGIC):
        return tiff.mode(data)
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        return f"{image.format} {image.mode}" + (" 16-bit" if png.deep_colours(data) else "")


def is_turned(data: bytes) -> bool:
    """Whether a picture that can be decoded is kept otherwise than it is seen."""
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        return _orientation(image) in range(2, 9)


def stored_values(data: bytes | Pixels, channels: int) -> Stored:
    """An image's values as it is kept, for which a range can be given; alpha is left out. Raises as `decode`."""
    if isinstance(data, np.ndarray):
        return arrays.stored(data)
    with explained():
        if data.startswith(NPY):
            return arrays.stored(arrays.read_npy(data, MAX_PIXELS))
        beyond_pillow = tiff.read_stored(data, channels, MAX_PIXELS) if data.startswith(tiff.MAGIC) else None
    if beyond_pillow is not None:
        return beyond_pillow
    pixels = decode(data, channels)
    if pixels.dtype == torch.uint8:
        return arrays.stored(pixels[:3].numpy())
    return arrays.stored((pixels[:3] * 65535).round().numpy().astype(np.uint16))  # a picture of 16 bits


def _decode(
    data: bytes | Pixels, channels: int, max_pixels: int, value_range: Range | None, factor: Factor | None
) -> tuple[Pixels, Reduction | None]:
    """Pixels [H, W, C], and what was made fewer where factor is given and allows it."""
    if isinstance(data, np.ndarray):
        return arrays.from_array(data, channels, value_range), None
    if not data:
        raise ImageError("the file is empty")
    if data.startswith(NPY):
        return arrays.from_array(arrays.read_npy(data, max_pixels), channels, value_range), None
    if data.startswith(tiff.MAGIC):
        beyond_pillow = tiff.read(data, channels, max_pixels, value_range)
        if beyond_pillow is not None:
            return _oriented(*beyond_pillow), None
    if channels not in (1, 3, 4):
        raise ImageError(f"such a file cannot hold {channels} channels; keep these images as .npy or .tif")
    return _read_picture(data, channels, max_pixels, value_range, factor if value_range is None else None)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format, or damaged where it begins"
    if isinstance(error, MemoryError):
        return "too large for the memory of this machine"
    words = " ".join(str(error).split())
    return words if any(map(str.isalpha, words)) else f"damaged ({type(error).__name__} {words})".replace(" )", ")")


def _read_picture(
    data: bytes, channels: int, max_pixels: int, value_range: Range | None, factor: Factor | None
) -> tuple[Pixels, Reduction | None]:
    if data[:4] == b"RIFF" and int.from_bytes(data[4:8], "little") > len(data) - 8:
        raise ImageError("truncated: the WebP is shorter than it says")
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        arrays.guard(image.height, image.width, max_pixels)
        if image.format == "TIFF":
            image.load()  # which turns the picture itself, and forgets its orientation
        elif image.format == "PNG":
            png.check(data)
        orientation = _orientation(image)
        stored_hw, by = (image.height, image.width), 1
        plain: Image.Image = image
        pixels = None
        if image.format in ("JPEG", "MPO"):
            if factor is not None and _SPACES.get(image.mode) == "RGB":
                by = factor(*_turned(stored_hw, orientation))
            pixels = _fast_jpeg(data, image, by)
            if pixels is None and by > 1:
                image.draft(None, (image.width // by, image.height // by))
        if pixels is not None and channels != 3:
            plain, pixels = Image.fromarray(pixels), None
        if image.mode in _SIXTEEN_BIT or png.deep_colours(data):
            pixels = _deep(data, image, channels, value_range)
        elif pixels is None:
            pixels = np.atleast_3d(np.asarray(_in_colours(plain, channels)))
        if value_range is not None and pixels.dtype == np.uint8:
            pixels = _scaled(pixels, value_range)
    return _oriented(pixels, orientation), None if by == 1 else _reduction(by, stored_hw, orientation)


def _fast_jpeg(data: bytes, image: Image.Image, by: int) -> Pixels | None:
    """simplejpeg's pixels of a JPEG, [H, W, 3] in RGB; None where Pillow has to decide. ImageError for damaged ones.

    by: so many pixels become one each way; the size is rounded up.
    """
    jpeg.check(data, to_the_end=simplejpeg is None)
    space = _SPACES.get(image.mode)
    if simplejpeg is None or space is None:
        return None

    strictly = partial(
        simplejpeg.decode_jpeg, colorspace=space, fastdct=False, fastupsample=False, strict=True,
        min_height=-(-image.height // by), min_width=-(-image.width // by),
    )  # fmt: skip
    try:
        pixels: Pixels = strictly(data)
    except ValueError as error:  # damaged, or only odd
        jpeg.judge(data, str(error), strictly)
        return None
    return pixels if space == "RGB" else None


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF comes as SyntaxError, struct.error, ValueError ...; the pixels may be sound
        return 1


_SIDEWAYS, _UPSIDE_DOWN, _MIRRORED = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)  # EXIF's orientations, in this order


def _oriented(pixels: Pixels, orientation: int) -> Pixels:
    """Pixels [H, W, C] as the viewer should see them; EXIF orientations 1 to 8, others count as 1."""
    if orientation in _SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in _UPSIDE_DOWN:
        pixels = pixels[::-1]
    if orientation in _MIRRORED:
        pixels = pixels[:, ::-1]
    return pixels


def _turned(hw: tuple[int, int], orientation: int) -> tuple[int, int]:
    return hw[::-1] if orientation in _SIDEWAYS else hw


def _reduction(by: int, stored_hw: tuple[int, int], orientation: int) -> Reduction:
    """What was made fewer of an image that is to be turned; as stored, its last row and column reach out of it."""
    rows, columns = _turned((-stored_hw[0] % by, -stored_hw[1] % by), orientation)
    before = (rows if orientation in _UPSIDE_DOWN else 0, columns if orientation in _MIRRORED else 0)
    return Reduction(by, _turned(stored_hw, orientation), before)


def _deep(data: bytes, image: Image.Image, channels: int, value_range: Range | None) -> Pixels:
    """Pixels [H, W, C] float32 of a picture of 16 bits."""
    values = np.atleast_3d(np.asarray(image))  # whole, or an error
    if png.deep_colours(data):
        values = png.read_deep(data)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageError(f"grey values from {low} to {high}; 16 bits, 0 to 65535, are the most that is understood")
    values = values.astype(np.uint16, copy=False)
    own = values.shape[2] if values.shape[2] in (1, 3) else values.shape[2] - 1
    alpha = values[..., own:] if own < values.shape[2] else None
    if alpha is None and (hidden := image.info.get("transparency")) is not None:
        alpha = (values != np.array(hidden)).any(axis=2, keepdims=True)
    colours: Colours = "grey" if own == 1 else "rgb"
    shown = None if alpha is None else arrays.scaled(alpha)
    return arrays.coloured(arrays.scaled(values[..., :own], value_range), colours, channels, alpha=shown)


def _in_colours(image: Image.Image, channels: int) -> Image.Image:
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    if image.mode in ("RGBa", "La"):  # premultiplied: Pillow converts these to their plain form only
        image = image.convert(image.mode.upper())
    if image.has_transparency_data and channels != 4:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image)
    if mode == "L" and image.mode not in ("1", "L"):
        image = image.convert("RGB")  # some modes have no way to grey but this
    return image.convert(mode)


def _scaled(pixels: Pixels, value_range: Range) -> Pixels:
    """A picture of eight bits in a range, float32; a fourth channel is alpha, which has none."""
    colour = arrays.scaled(pixels[..., :3], value_range)
    if pixels.shape[2] < 4:
        return colour
    return np.concatenate([colour, pixels[..., 3:].astype(np.float32) / np.float32(255)], axis=2)
