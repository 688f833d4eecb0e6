"""From arrays to a picture a person can look at: panels side by side, masks shown and read, files written whole.

Legend: H W pixels, C channels. One channel is shown as grey, two as their mean, of more than three the first three.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from maekit import storage
from maekit.data.decode import decode
from maekit.errors import DataError, ImageError, ModelError, UsageError

Pixels = NDArray[np.uint8]

HIDDEN_GREY = 128
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_MASK_PIXELS = 1 << 24

_PANEL = 160
_MARGIN = 24
_GUTTER = 12
_LINE = 22
_PAPER, _INK, _QUIET_INK, _EDGE = "#ffffff", "#1a1a1a", "#555555", "#cccccc"


class Row(NamedTuple):
    """One image three times, each [H, W, C] or [H, W] uint8."""

    masked: Pixels
    reconstruction: Pixels
    original: Pixels


def grid(
    rows: Sequence[Sequence[Pixels]],
    *,
    headings: Sequence[str] = ("masked", "reconstruction", "original"),
    caption: str = "",
) -> Image.Image:
    """One picture of all rows, with a heading over each column and a wrapped caption below.

    Images under 160 px are enlarged by a whole factor without smoothing, so every pixel stays what it was.
    """
    if not rows:
        raise ValueError("a picture needs at least one row")
    panels = [[panel(pixels) for pixels in row] for row in rows]
    cell = max(one.width for line in panels for one in line)
    heights = [max(one.height for one in line) for line in panels]
    width = 2 * _MARGIN + len(headings) * cell + (len(headings) - 1) * _GUTTER

    heading_font, caption_font = ImageFont.load_default(16), ImageFont.load_default(14)
    caption_lines = _wrap(caption, caption_font, width - 2 * _MARGIN)
    top = _MARGIN + _LINE + 6
    bottom = top + sum(heights) + (len(rows) - 1) * _GUTTER
    caption_height = _GUTTER + len(caption_lines) * _LINE if caption_lines else 0
    canvas = Image.new("RGB", (width, bottom + caption_height + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(canvas)

    for column, heading in enumerate(headings):
        middle = _MARGIN + column * (cell + _GUTTER) + cell / 2
        draw.text((middle, _MARGIN), heading, fill=_INK, font=heading_font, anchor="ma")
    for line, height in zip(panels, heights, strict=True):
        for column, one in enumerate(line):
            left = _MARGIN + column * (cell + _GUTTER) + (cell - one.width) // 2
            draw.rectangle((left - 1, top - 1, left + one.width, top + one.height), outline=_EDGE)
            canvas.paste(one, (left, top))
        top += height + _GUTTER
    for number, text in enumerate(caption_lines):
        draw.text((_MARGIN, bottom + _GUTTER + number * _LINE), text, fill=_QUIET_INK, font=caption_font)
    return canvas


def masked_panel(image: Pixels, masked: NDArray[np.bool_]) -> Pixels:
    """The image with its hidden patches in a neutral grey.

    image: [H, W, C] or [H, W] uint8; masked: bool, True = hidden, [rows, columns], or [rows, columns, C] where each
    channel has patches of its own. Returns a new array like image.
    Raises ModelError where the image does not divide into the mask's patches.
    """
    (height, width), (rows, columns) = image.shape[:2], masked.shape[:2]
    if height % rows or width % columns:
        raise ModelError(f"an image of {height}x{width} pixels does not divide into {rows}x{columns} patches")
    hidden = masked.repeat(height // rows, axis=0).repeat(width // columns, axis=1)
    return np.where(hidden if hidden.ndim == image.ndim else hidden[..., None], np.uint8(HIDDEN_GREY), image)


def read_mask(path: Path, grid: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask in a black and white picture of any size: [rows, columns] bool, True (white) = hidden.

    A patch is hidden where at least half of its area is white. The picture is decoded as every image is, so what is
    transparent counts as white.
    Raises DataError for a file that is no picture, ModelError for a mask that hides all patches or none.
    """
    try:
        painted = decode(path.read_bytes(), 1, max_pixels=_MASK_PIXELS)
    except (OSError, ImageError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: the mask cannot be read ({reason})") from None
    brightness = painted[0].numpy().astype(np.float32)
    white = 1.0 if painted.is_floating_point() else 255.0
    masked = at_grid(brightness / np.float32(white), grid)
    rows, columns = grid
    if masked.all() or not masked.any():
        found = "every patch" if masked.all() else "no patch"
        raise ModelError(f"{path}: hides {found} of {rows}x{columns}; paint white what to hide, black what to show")
    return masked


def at_grid(hidden: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask painted at any size, [H, W], 1 where it hides, for a grid of (rows, columns): hidden is what half is."""
    share = Image.fromarray(hidden).resize((grid[1], grid[0]), Image.Resampling.BOX)
    return np.asarray(share) >= 0.5


def save(picture: Image.Image, path: Path) -> None:
    """Write a .png or .jpg that is either complete or not there. Raises what `check_writable` raises."""
    check_writable(path)
    with storage.replacing(path) as temporary:
        picture.save(temporary, format=_format(path), quality=92, subsampling=0)  # which PNG takes no notice of


def png(picture: Image.Image) -> bytes:
    """What `save` would write to a .png."""
    written = io.BytesIO()
    picture.save(written, format="PNG")
    return written.getvalue()


def check_writable(path: Path) -> None:
    """Raise, before any work, what `save` would raise after it.

    UsageError for a suffix that is no picture format we write, StorageError for a folder that is missing or read-only.
    """
    _format(path)
    storage.check_writable(path)


def _format(path: Path) -> str:
    try:
        return _FORMATS[path.suffix.lower()]
    except KeyError:
        raise UsageError(f"{path}: a picture is written as .png or .jpg, not as {path.suffix or 'no suffix'}") from None


def panel(pixels: Pixels, least: int = _PANEL) -> Image.Image:
    """[H, W, C] or [H, W] uint8 as a picture, enlarged by a whole factor where its sides are under `least` px."""
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise ValueError(f"a panel is [H, W, C] or [H, W] uint8, not {list(pixels.shape)} {pixels.dtype}")
    if pixels.ndim == 3:
        channels = pixels.shape[2]
        pixels = pixels[..., :3] if channels >= 3 else pixels.mean(axis=2).round().astype(np.uint8)
    shown = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
    factor = math.ceil(least / max(shown.size))
    return shown.resize((shown.width * factor, shown.height * factor), Image.Resampling.NEAREST)


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    """Lines no wider than `width` pixels, broken between words, and within a word that is wider than a line."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        rest = " ".join(paragraph.split())
        while font.getlength(rest) > width and len(rest) > 1:
            fitting = next(n for n in range(len(rest) - 1, 0, -1) if n == 1 or font.getlength(rest[:n]) <= width)
            between = rest.rfind(" ", 0, fitting + 1)
            end = fitting if between < 0 else between
            lines.append(rest[:end])
            rest = rest[end:].lstrip()
        lines.append(rest)
    return lines
