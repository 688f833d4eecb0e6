"""A Swin's weights for other attention windows than they were trained with.

A stage's window is the model's, or its whole grid where that is smaller. So another image size can change windows too.
"""

import warnings
from contextlib import suppress
from dataclasses import replace
from math import isqrt

import torch
from timm.layers import resize_rel_pos_bias_table
from torch import Tensor, nn

from maekit.config import ModelConfig
from maekit.errors import ModelError, WeightsError
from maekit.models.family import family_of
from maekit.models.swin import nearest_window

_TABLE = "relative_position_bias_table"

Window = tuple[int, int]


def rewindow(
    own: ModelConfig, wanted: ModelConfig, tensors: dict[str, Tensor], window: int | None, what: str
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Config and tensors (under maekit's own names) with windows of so many patches; None: as they are.

    own: what the tensors are for. wanted: the same for the images that are to be seen. Position biases are resampled
    as timm does on loading, geometrically spaced as BEiT's are (arXiv 2106.08254, released code): the nearest offsets
    keep theirs, further ones are interpolated linearly. Swin V2 has no such tables: its network computes biases
    from offsets as a share of the window. Raises WeightsError where the encoder has no windows, they do not divide the
    images, or tables would have to be resampled and that was not asked for.
    """
    if family_of(own.encoder).name != "swin":
        if window is None:
            return wanted, tensors
        raise WeightsError(f"{what}: {_option()} belongs to Swin; {own.encoder} has no windows; leave it out")
    changed = wanted if window is None else replace(wanted, window=window)
    after = {name: new for name, new in _windows_or_refuse(changed, window, what).items() if name in tensors}
    before: dict[str, Window] = {}
    with suppress(ModelError):  # its own size was not told, and the one it is taken to have does not fit
        before = _windows(own)
    resampled = {}
    for name, new in after.items():
        side = (isqrt(len(tensors[name])) + 1) // 2  # of a window that is taken to be square
        old = before.get(name, (side, side))
        entries = (2 * old[0] - 1) * (2 * old[1] - 1)
        if old == new or len(tensors[name]) != entries:  # what fits no window is told with all that does not fit
            continue
        if window is None:
            raise WeightsError(
                f"{what}: has position biases for windows of {_x(old)} patches where images of {px(wanted.image_hw)} "
                f"have {_x(new)}; {_option(changed.window or max(new))} resamples them"
            )
        resampled[name] = _resample(tensors[name], old, new)
    return changed, {**tensors, **resampled}


def _windows_or_refuse(config: ModelConfig, window: int | None, what: str) -> dict[str, Window]:
    try:
        return _windows(config)
    except ModelError as error:
        fitting = nearest_window(config)
        if fitting is None or fitting == config.window:  # it is not the windows that do not fit
            raise
        instead = _option(fitting)
        if window is None:
            reason = str(error).removeprefix("model.image_size: ")
            raise WeightsError(f"{what}: {reason}; or {instead}, which resamples position biases") from None
        raise WeightsError(
            f"{what}: windows of {window} patches do not divide images of {px(config.image_hw)}; take {instead}"
        ) from None


def _windows(config: ModelConfig) -> dict[str, Window]:
    """The windows of all bias tables, by the tables' names. Raises ModelError where they do not fit the images."""
    with torch.device("meta"):
        encoder = family_of(config.encoder).build(config)
    return {
        f"encoder.{name}.{_TABLE}": tuple(module.window_size)
        for name, module in encoder.named_modules()
        if isinstance(getattr(module, _TABLE, None), nn.Parameter)
    }


def _resample(table: Tensor, old: Window, new: Window) -> Tensor:
    """[(2 h - 1) (2 w - 1), heads] of the old window → the same of the new one."""
    (height, width), (wanted_height, wanted_width) = ([2 * side - 1 for side in window] for window in (old, new))
    grid = table.T.unflatten(1, (height, width))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, at what timm does inside
        resized = resize_rel_pos_bias_table(grid, new, (len(grid), wanted_height, wanted_width))
    return resized.flatten(1).T.contiguous()


def _option(window: int | None = None) -> str:
    value = "" if window is None else f" {window}"
    return f"--window{value} (in finetune --classifier.window{value})"


def _x(window: Window) -> str:
    height, width = window
    return str(height) if height == width else f"{height}x{width}"


def px(image_hw: tuple[int, int]) -> str:
    """A size of images in words."""
    return f"{image_hw[0]}x{image_hw[1]} px"
