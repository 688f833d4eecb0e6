"""A target of your own: histograms of oriented gradients, which MaskFeat (arXiv 2112.09133) predicts instead of pixels.

maekit pretrain vit-tiny-small-data --data photos --target examples.hog_target:Hog,bins=9
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from maekit.patches import take
from maekit.targets import Geometry


class Hog:
    """How strong edges are in each direction, in cells of half a patch, of each colour channel.

    `width` tells the decoder how many values it predicts for a patch. There is no `paint`: reports leave pictures out.
    """

    def __init__(self, geometry: Geometry, bins: int = 9) -> None:
        self.bins = bins
        self.cell = (max(1, geometry.patch[0] // 2), max(1, geometry.patch[1] // 2))
        self.cells = (geometry.patch[0] // self.cell[0], geometry.patch[1] // self.cell[1])
        self.width = self.cells[0] * self.cells[1] * geometry.channels * bins

    def make(self, images: Tensor, index: Tensor) -> Tensor:
        """images [N, C, H, W] standardised, index [N, Q] of the patches that are predicted → [N, Q, width]."""
        histograms = F.normalize(self.histograms(images.float()), dim=2)  # [N, C, bins, rows, columns] of cells
        high, wide = self.cells
        rows, columns = histograms.shape[3] // high, histograms.shape[4] // wide
        blocks = histograms.view(*histograms.shape[:3], rows, high, columns, wide).permute(0, 3, 5, 1, 4, 6, 2)
        return take(blocks.reshape(len(images), rows * columns, self.width), index)

    def histograms(self, images: Tensor) -> Tensor:
        """Gradients' strength by direction, summed over each cell: [N, C, bins, H / cell, W / cell]."""
        padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
        across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
        down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
        strength = torch.sqrt(across**2 + down**2)
        angle = torch.atan2(down, across) % math.pi  # an edge and its opposite are one
        number = (angle / math.pi * self.bins).long().clamp(max=self.bins - 1)
        spread = torch.zeros(*images.shape[:2], self.bins, *images.shape[2:], device=images.device)
        spread.scatter_(2, number[:, :, None], strength[:, :, None])
        pooled = F.avg_pool2d(spread.flatten(1, 2), self.cell)
        return pooled.view(*spread.shape[:3], *pooled.shape[2:])
