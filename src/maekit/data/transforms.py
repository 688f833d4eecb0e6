"""What happens to pixels between decoding and the model. Shapes: images [C, H, W] uint8, or float32 in [0, 1].

Everything random about one view of one image comes from a key of integers (seed, epoch, index, view), so it depends
on no other image, nor on batch, worker or rank.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import ColorJitter, functional

from maekit import parts
from maekit.config import AugmentConfig
from maekit.config.beforehand import check_augment
from maekit.data.reduced import Box, Reduced, largest_factor
from maekit.errors import UsageError
from maekit.randomness import global_seeds, numpy_generator

_AUGMENT = 0x617567  # keeps these draws apart from masks, which have the same seed, epoch, index and view
_RANDAUGMENT_FILL = (124, 116, 104)  # ImageNet's mean, where rotation and shear uncover nothing
_WIDEST = 4  # times what is asked for: more of a long thin image is cut away before it is resized, not after
_MUCH_LARGER = 25  # times the pixels asked for: in less, decoding saves no more than resampling between pixels costs
_NOISE_MEAN, _NOISE_STD = 0.5, 0.25  # of erased pixels


class TrainTransform:
    """The augmentation of training images to image_hw = (height, width), in the order of AugmentConfig.

    Raises UsageError for a RandAugment that is not understood.
    """

    def __init__(self, augment: AugmentConfig, image_hw: tuple[int, int]) -> None:
        self.augment, self.image_hw = augment, image_hw
        self._randaugment: Any = _randaugment(augment, image_hw) if augment.randaugment else None
        self._jitter: Any = None
        self._erase: Any = None
        self._own: Any = None
        if (strengths := augment.color_jitter) and augment.color_jitter_prob:
            self._jitter = ColorJitter(*(strengths * 3 if len(strengths) == 1 else strengths))
        if augment.own:
            parts.say(augment.own)
            self._own = parts.find("augment", augment.own).bound()
        if augment.erase:
            from timm.data.random_erasing import RandomErasing

            self._erase = RandomErasing(augment.erase, mode="pixel", device="cpu")

    def __call__(self, image: Tensor | Reduced, *key: int) -> Tensor:
        """image: [C, H, W], or fewer pixels of it; key: (seed, epoch, index, view). Returns [C, h, w] of that dtype."""
        draw = numpy_generator(_AUGMENT, *key)
        cropped = self._crop(image, draw)
        if draw.random() < self.augment.flip:
            cropped = functional.horizontal_flip(cropped)
        if any(step is not None for step in (self._randaugment, self._jitter, self._erase, self._own)):
            with global_seeds(_AUGMENT, *key):
                cropped = self._from_libraries(cropped)
        return cropped

    def factor(self, keys: Sequence[tuple[int, ...]], height: int, width: int) -> int:
        """How many pixels of a larger image may become one, each way, for all views of these keys to be made of
        pixels that are no fewer than theirs; 1 where it would not pay."""
        if height * width < _MUCH_LARGER * math.prod(self.image_hw):
            return 1
        boxes = (self._box(height, width, numpy_generator(_AUGMENT, *key)) for key in keys)
        spare = min(min(box[2] / self.image_hw[0], box[3] / self.image_hw[1]) for box in boxes)
        return largest_factor(spare)

    def _box(self, height: int, width: int, draw: np.random.Generator) -> Box:
        """The part of a larger image that is seen. Of whole pixels, where it is drawn."""
        if self.augment.crop == "random":
            return _random_box(draw, height, width, self.augment.scale, self.augment.ratio)
        if self.augment.crop != "center":
            return 0, 0, height, width
        pixels = min(height / self.image_hw[0], width / self.image_hw[1])
        rows, columns = self.image_hw[0] * pixels, self.image_hw[1] * pixels
        return (height - rows) / 2, (width - columns) / 2, rows, columns

    def _crop(self, image: Tensor | Reduced, draw: np.random.Generator) -> Tensor:
        height, width = self.image_hw
        how = self.augment.crop
        if isinstance(image, Reduced):
            box = self._box(*image.reduction.image_hw, draw)
            cropped = image.resized(box, self.image_hw, self.augment.interpolation)
        elif how == "center":
            cropped = _cover_and_centre(image, self.image_hw, self.image_hw, self.augment.interpolation)
        else:
            if how == "random":
                top, left, rows, columns = _random_box(
                    draw, image.shape[-2], image.shape[-1], self.augment.scale, self.augment.ratio
                )
                image = image[:, top : top + rows, left : left + columns]
                image = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # which is resized sooner than a view
            cropped = resize(image, self.image_hw, self.augment.interpolation)
        if how == "pad":
            vertical, horizontal = height // 8, width // 8
            cropped = functional.pad(cropped, [horizontal, vertical])
            top, left = int(draw.integers(2 * vertical + 1)), int(draw.integers(2 * horizontal + 1))
            cropped = cropped[:, top : top + height, left : left + width]
        return cropped

    def _from_libraries(self, image: Tensor) -> Tensor:
        if self._randaugment is not None:
            check_augment(self.augment, len(image))
            picture = functional.to_pil_image(functional.to_dtype(image, torch.uint8, scale=True))
            image = functional.to_dtype(functional.pil_to_tensor(self._randaugment(picture)), image.dtype, scale=True)
        if self._jitter is not None and torch.rand(()) < self.augment.color_jitter_prob:
            image = self._jitter(image)
        if self._erase is not None:
            values = functional.to_dtype(image, torch.float32, scale=True)
            values = self._erase((values - _NOISE_MEAN) / _NOISE_STD) * _NOISE_STD + _NOISE_MEAN
            image = functional.to_dtype(values.clamp_(0, 1), image.dtype, scale=True)
        return image if self._own is None else self._by_own(image)

    def _by_own(self, image: Tensor) -> Tensor:
        try:
            changed = self._own(image)
        except Exception as error:
            raise UsageError(f"augment {self.augment.own}: {type(error).__name__}: {error}") from error
        if not isinstance(changed, Tensor) or (changed.shape, changed.dtype) != (image.shape, image.dtype):
            found = f"{changed.dtype} {list(changed.shape)}" if isinstance(changed, Tensor) else type(changed).__name__
            wanted = f"{image.dtype} {list(image.shape)}"
            raise UsageError(
                f"augment {self.augment.own}: made {found} of an image that is {wanted}; both must be alike"
            )
        return changed


@dataclass(frozen=True)
class EvalTransform:
    """Resize so that image_hw / crop_share is just covered, then take the centre. Nothing about it is random."""

    image_hw: tuple[int, int]
    crop_share: float

    def __call__(self, image: Tensor) -> Tensor:
        """image: [C, H, W]. Returns [C, h, w] of the same dtype."""
        height, width = (math.floor(side / self.crop_share) for side in self.image_hw)
        return _cover_and_centre(image, (height, width), self.image_hw, "bicubic")


def _cover_and_centre(image: Tensor, cover: tuple[int, int], centre: tuple[int, int], interpolation: str) -> Tensor:
    """Resize, keeping proportions, to the smallest size that covers `cover`, then take the `centre`."""
    height, width = image.shape[-2:]
    scale = max(cover[0] / height, cover[1] / width)
    most = [max(1, math.ceil(_WIDEST * side / scale)) for side in cover]
    if height > most[0] or width > most[1]:
        image = functional.center_crop(image, [min(height, most[0]), min(width, most[1])])
        height, width = image.shape[-2:]
    size = (max(cover[0], int(height * scale)), max(cover[1], int(width * scale)))
    return functional.center_crop(resize(image, size, interpolation), list(centre))


def resize(image: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """An image [C, H, W] at a size (height, width), resampled with antialiasing."""
    if tuple(image.shape[-2:]) == size:
        return image
    resized: Tensor = functional.resize(image, list(size), InterpolationMode(interpolation), antialias=True)
    return resized.clamp_(0, 1) if resized.is_floating_point() else resized  # bicubic overshoots


def _random_box(
    draw: np.random.Generator, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """(top, left, rows, columns) of a random share of the area with a random ratio of width to height.

    Inception's crop (arXiv 1409.4842, section 6) as torchvision bounds it: ten tries, then the largest central box
    within the ratios.
    """
    for _ in range(10):
        area = height * width * draw.uniform(*scale)
        aspect = math.exp(draw.uniform(math.log(ratio[0]), math.log(ratio[1])))
        rows, columns = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < rows <= height and 0 < columns <= width:
            return int(draw.integers(height - rows + 1)), int(draw.integers(width - columns + 1)), rows, columns
    columns = min(width, max(1, round(height * ratio[1])))
    rows = min(height, max(1, round(width / ratio[0])))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def _randaugment(augment: AugmentConfig, image_hw: tuple[int, int]) -> Any:
    from timm.data.auto_augment import rand_augment_transform
    from timm.data.transforms import str_to_pil_interp

    text = augment.randaugment
    settings = {
        "translate_const": int(min(image_hw) * 0.45),
        "img_mean": _RANDAUGMENT_FILL,
        "interpolation": str_to_pil_interp(augment.interpolation),  # else timm draws one for each operation
    }
    try:
        transform = rand_augment_transform(text, settings)
    except (AssertionError, ValueError, KeyError) as error:
        raise UsageError(
            f"augment.randaugment: {text!r} is not understood ({str(error) or type(error).__name__}); "
            "write it as timm does, such as rand-m9-mstd0.5-inc1, or '' for none"
        ) from None
    for op in transform.ops:
        if op.aug_fn.__name__ == "posterize":
            op.aug_fn = partial(_posterize, op.aug_fn)
    return transform


def _posterize(by_timm: Any, picture: Any, bits: int, **settings: Any) -> Any:
    """Keeping at least one bit: strengths of 10 and more leave none, which Pillow 13 refuses."""
    return by_timm(picture, max(1, bits), **settings)
