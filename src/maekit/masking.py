"""Which patches of an image are hidden.

A mask is data: `masked: bool [N, L]`, True = hidden, L the patches of the grid in raster order. It is a function of the
image's key alone, so it changes neither with workers nor with world size, and hides as many patches in every image.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from maekit import parts
from maekit.config import MaskConfig
from maekit.errors import ModelError, UsageError
from maekit.randomness import keys_tensor, numpy_generator, uniform_scores
from maekit.sending import send

_SMALLEST_BLOCK = 4  # patches in one rectangle, at the least
_BLOCK_ASPECT = (0.3, 1 / 0.3)  # its height over width; both as in arXiv 2106.08254, algorithm 1


class Mask(Protocol):
    """What is hidden in images of one grid. A user's own is made as `Own(grid=(rows, columns), ratio=0.75)`."""

    @property
    def hidden(self) -> int:
        """Patches that are hidden in each image."""

    def draw(self, keys: Tensor) -> Tensor:
        """One mask an image: keys [N] int64 → masked [N, L] bool on the keys' device; equal keys, equal masks.

        One that reads its keys says `on_host = True`: it is then given them in the host's memory, else on the device.
        """


def build(config: MaskConfig, grid: tuple[int, int], planes: int = 1) -> Mask:
    """The mask of a config for a grid of (rows, columns) patches.

    planes: channels that lie one below the other in the grid; each is hidden by a mask of its own, of equal share.
    Raises ModelError where grid and mask do not fit, or nothing would be hidden or visible; UsageError for a part of
    the user's that does not keep to `Mask`.
    """
    if planes > 1:
        return _EachPlane(build(config, (grid[0] // planes, grid[1])), planes)
    if config.kind in _DRAWS:
        return _Drawn(config, grid, _hidden_count(config, grid))
    own: Mask = parts.find("mask", config.kind).make(grid=grid, ratio=config.ratio)
    _check(own, config.kind, grid[0] * grid[1])
    return own


def draw(config: MaskConfig, grid: tuple[int, int], keys: Tensor, planes: int = 1) -> Tensor:
    """Masks of a config, drawn once: keys [N] int64 → masked [N, L] bool. planes: as `build` has them."""
    return build(config, grid, planes).draw(keys)


def draw_on(device: torch.device, mask: Mask, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Masks [N, L] and their keys on a device that is not waited for, of keys [N] int64 in the host's memory."""
    sent = send(keys, device)
    return (send(mask.draw(keys), device) if getattr(mask, "on_host", False) else mask.draw(sent)), sent


@dataclass(frozen=True)
class _Drawn:
    config: MaskConfig
    grid: tuple[int, int]
    hidden: int

    @property
    def on_host(self) -> bool:
        return self.config.kind == "block"

    def draw(self, keys: Tensor) -> Tensor:
        return _DRAWS[self.config.kind](self, keys)


@dataclass(frozen=True)
class _EachPlane:
    one: Mask
    planes: int

    @property
    def hidden(self) -> int:
        return self.one.hidden * self.planes

    @property
    def on_host(self) -> bool:
        return getattr(self.one, "on_host", False)

    def draw(self, keys: Tensor) -> Tensor:
        planes = torch.arange(self.planes, device=keys.device).repeat(len(keys))
        each = self.one.draw(keys_tensor(keys.repeat_interleave(self.planes), planes))
        return each.reshape(len(keys), -1)


def _check(mask: Mask, name: str, patches: int) -> None:
    """Raises UsageError where a user's mask breaks what training rests on."""
    keys = keys_tensor(0, torch.arange(4))
    if not isinstance(getattr(mask, "hidden", None), int):
        raise UsageError(f"mask {name}: has no `hidden`, the number of patches that are hidden in each image")
    try:
        masked, again, hidden = mask.draw(keys), mask.draw(keys.flip(0)).flip(0), mask.hidden
    except Exception as error:
        raise UsageError(f"mask {name}: cannot be drawn ({type(error).__name__}: {error})") from error
    if not isinstance(masked, Tensor) or masked.dtype != torch.bool or masked.shape != (4, patches):
        found = f"{masked.dtype} {list(masked.shape)}" if isinstance(masked, Tensor) else type(masked).__name__
        raise UsageError(
            f"mask {name}: drew {found} for 4 images of {patches} patches; it has to be bool [4, {patches}]"
        )
    if not 0 < hidden < patches or masked.sum(dim=1).tolist() != [hidden] * 4:
        counts = ", ".join(map(str, masked.sum(dim=1).tolist()))
        raise UsageError(
            f"mask {name}: hides {counts} of {patches} patches and says {hidden}; each image has to hide as many, and "
            "leave some"
        )
    if not masked.equal(again):
        raise UsageError(
            f"mask {name}: draws other masks for the same keys, so no run could be resumed; draw from the keys, as by "
            "maekit.randomness.uniform_scores"
        )


def _hidden_count(config: MaskConfig, grid: tuple[int, int]) -> int:
    rows, columns = grid
    patches = rows * columns
    if config.kind == "one_in_2x2":
        if rows % 2 or columns % 2:
            raise ModelError(f"mask.kind one_in_2x2: needs an even grid; the image has {rows}x{columns} units")
        _check_ratio(config, 0.75)
        hidden = patches * 3 // 4
    elif config.kind == "grid":
        step = _grid_step(config)
        hidden = patches - math.ceil(rows / step) * math.ceil(columns / step)
    else:  # truncating the visible share, not the hidden one, is what the paper's released code does
        hidden = patches - int(patches * (1 - config.ratio))
    if not 0 < hidden < patches:
        raise ModelError(f"mask.ratio {config.ratio}: hides {hidden} of {patches} units; some must hide and some show")
    return hidden


def choose(index: Tensor, count: int, keys: Tensor) -> Tensor:
    """`count` of each row's entries, uniformly, in the order they had: index [N, L], keys [N] → [N, count]."""
    scores = uniform_scores(keys, index.shape[1])
    chosen = scores.argsort(dim=1)[:, :count].sort(dim=1).values
    return index.gather(1, chosen)


def _random(mask: _Drawn, keys: Tensor) -> Tensor:
    order = uniform_scores(keys, mask.grid[0] * mask.grid[1]).argsort(dim=1)
    masked = torch.zeros(order.shape, dtype=torch.bool, device=keys.device)
    return masked.scatter(1, order[:, : mask.hidden], True)


def _one_in_2x2(mask: _Drawn, keys: Tensor) -> Tensor:
    """One visible patch in every 2x2 block (UM-MAE, arXiv 2205.10063)."""
    rows, columns = mask.grid
    scores = uniform_scores(keys, rows * columns).view(-1, rows // 2, columns // 2, 4)
    masked = torch.ones_like(scores, dtype=torch.bool).scatter(3, scores.argmax(dim=3, keepdim=True), False)
    return masked.unflatten(3, (2, 2)).transpose(2, 3).reshape(len(keys), rows * columns)


def _grid_step(config: MaskConfig) -> int:
    step = round((1 - config.ratio) ** -0.5)
    _check_ratio(config, 1 - 1 / max(2, step) ** 2)
    return step


def _check_ratio(config: MaskConfig, nearest: float) -> None:
    if abs(config.ratio - nearest) > 0.01:
        raise ModelError(f"mask.ratio {config.ratio}: mask.kind {config.kind} cannot hide that; take {nearest:.4g}")


def _grid(mask: _Drawn, keys: Tensor) -> Tensor:
    """Every n-th patch of every n-th row stays visible, the same in every image (arXiv 2111.06377, figure 6)."""
    step = _grid_step(mask.config)
    masked = torch.ones(mask.grid, dtype=torch.bool, device=keys.device)
    masked[::step, ::step] = False
    return masked.flatten().expand(len(keys), -1)


def _block(mask: _Drawn, keys: Tensor) -> Tensor:
    """Rectangles until enough is hidden (arXiv 2106.08254, algorithm 1); of the last one, only what is missing."""
    masks = [_blocks_of_one(mask.grid, int(key), mask.hidden) for key in keys.tolist()]
    return torch.from_numpy(np.stack(masks)).to(keys.device)


def _blocks_of_one(grid: tuple[int, int], key: int, hidden: int) -> np.ndarray:
    rows, columns = grid
    draws = numpy_generator(key)
    masked = np.zeros(grid, dtype=bool)
    while (missing := hidden - int(masked.sum())) > 0:
        area = draws.uniform(min(_SMALLEST_BLOCK, missing), max(missing, _SMALLEST_BLOCK))
        aspect = math.exp(draws.uniform(math.log(_BLOCK_ASPECT[0]), math.log(_BLOCK_ASPECT[1])))
        height = min(rows, max(1, round(math.sqrt(area * aspect))))
        width = min(columns, max(1, round(math.sqrt(area / aspect))))
        top, left = int(draws.integers(rows - height + 1)), int(draws.integers(columns - width + 1))
        block = np.zeros(grid, dtype=bool)
        block[top : top + height, left : left + width] = True
        new = np.flatnonzero(block & ~masked)
        masked.flat[new[:missing] if len(new) > missing else new] = True
    return masked.ravel()


_DRAWS = {"random": _random, "one_in_2x2": _one_in_2x2, "grid": _grid, "block": _block}
KINDS = frozenset(_DRAWS)
