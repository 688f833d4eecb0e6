"""A mask of your own: hide the middle of every image, so that the encoder paints inwards from the border.

maekit pretrain vit-tiny-small-data --data photos --mask examples.centre_mask:Centre,wander=1
"""

import math

import torch
from torch import Tensor

from maekit.randomness import uniform_scores


class Centre:
    """A rectangle of about `ratio` of the patches, up to `wander` patches off the middle, drawn for each image.

    A mask is made for a grid once; `hidden` patches are hidden in every image, wherever the rectangle lies.
    """

    def __init__(self, grid: tuple[int, int], ratio: float, wander: int = 0) -> None:
        self.grid = grid
        self.size = tuple(min(side, max(1, round(side * math.sqrt(ratio)))) for side in grid)
        self.hidden = self.size[0] * self.size[1]
        self.wander = wander

    def draw(self, keys: Tensor) -> Tensor:
        """keys [N] int64, one an image and visit → masked [N, L] bool; all chance has to come from the keys."""
        free = [side - size for side, size in zip(self.grid, self.size, strict=True)]
        steps = uniform_scores(keys, 2) % (2 * self.wander + 1) - self.wander  # [N, 2]
        hides: list[Tensor] = []
        for axis, side in enumerate(self.grid):
            first = (free[axis] // 2 + steps[:, axis, None]).clamp(0, free[axis])
            place = torch.arange(side, device=keys.device)
            hides.append((place >= first) & (place < first + self.size[axis]))  # [N, side]
        rows, columns = hides
        return (rows[:, :, None] & columns[:, None, :]).flatten(1)
