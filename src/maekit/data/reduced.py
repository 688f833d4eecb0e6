"""Images of which fewer pixels were made than they have, and parts of them at the size that is asked for.

A JPEG can be decoded at a half, a quarter or an eighth of its size, rounded up, at less work: each pixel is then what
its transform (DCT) says of so many of the image, each way. Places are told in pixels of the whole image all the same.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

FACTORS = (8, 4, 2)
"""By which a JPEG can be decoded smaller, as all decoders can."""

Factor = Callable[[int, int], int]
"""By an image's height and width, as it is seen, how many of its pixels may become one each way: 1, 2, 4 or 8."""

Box = tuple[float, float, float, float]
"""top, left, rows and columns of a part of an image."""

_LIBRARY = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class Reduction(NamedTuple):
    """What was made fewer."""

    factor: int
    """Each pixel is so many of the image high and wide."""
    image_hw: tuple[int, int]
    """Of the image, as it is seen."""
    before: tuple[int, int]
    """How far, in pixels of the image, the first row and column reach out of it: where it was turned, they are those
    that were rounded up."""


@dataclass(frozen=True)
class Reduced:
    """Fewer pixels of an image."""

    pixels: Tensor
    """[C, h, w] uint8, of one, three or four channels."""
    reduction: Reduction

    def resized(self, box: Box, size: tuple[int, int], interpolation: str) -> Tensor:
        """A part of the image at a size (height, width), resampled with antialiasing: [C, height, width] uint8.

        Its edges lie between pixels that there are, so Pillow does it, whose boxes may begin anywhere.
        """
        spans = zip(box[:2], box[2:], self.reduction.before, self.pixels.shape[-2:], strict=True)
        (top, bottom), (left, right) = (self._span(*span) for span in spans)
        above, beside = math.floor(top), math.floor(left)
        part = self.pixels[:, above : math.ceil(bottom), beside : math.ceil(right)].permute(1, 2, 0).contiguous()
        picture = Image.fromarray((part[..., 0] if part.shape[2] == 1 else part).numpy())
        places = (left - beside, top - above, right - beside, bottom - above)
        resized = picture.resize(size[::-1], _LIBRARY[interpolation], box=places)
        values = torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8)
        return values.view(*size, -1).permute(2, 0, 1)

    def _span(self, start: float, length: float, before: int, end: int) -> tuple[float, float]:
        """Where a part begins and ends, in pixels that there are."""
        factor = self.reduction.factor
        return (start + before) / factor, min((start + length + before) / factor, end)


def largest_factor(pixels: float) -> int:
    """Of the factors the largest that makes no more than so many pixels into one; 1 where none does."""
    return next((factor for factor in FACTORS if factor <= pixels), 1)
