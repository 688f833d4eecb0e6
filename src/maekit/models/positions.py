"""Fixed position embeddings.

Legend: L patches in raster order, D width.
"""

import numpy as np
import torch
from torch import Tensor

from maekit.config.model import Positions
from maekit.errors import ModelError

_LONGEST_PERIOD = 10_000.0


def sincos(grid: tuple[int, int], width: int) -> Tensor:
    """2-D sin-cos embeddings of a grid of (rows, columns): [L, D] float32.

    The first half of the width tells the column, the second the row, each half as sines then cosines
    (arXiv 2111.06377, appendix A.1; this order is the released code's). Raises ModelError where 4 does not divide D.
    """
    if width % 4:
        raise ModelError(f"positions sincos: need a width that is a multiple of 4, not {width}")
    rows, columns = np.mgrid[0 : grid[0], 0 : grid[1]]
    rates = _LONGEST_PERIOD ** -(np.arange(width // 4) / (width // 4))
    angles = [axis.reshape(-1, 1) * rates for axis in (columns, rows)]
    table = np.concatenate([wave for angle in angles for wave in (np.sin(angle), np.cos(angle))], axis=1)
    return torch.as_tensor(table, dtype=torch.float32)


def sincos1d(count: int, width: int) -> Tensor:
    """1-D sin-cos embeddings of the numbers 0 to count - 1, sines and cosines alternating: [count, D] float32.

    The original transformer's (arXiv 1706.03762, section 3.5), and FlyEgle/MAE-pytorch's.
    """
    channels = np.arange(width)
    angles = np.arange(count)[:, None] / _LONGEST_PERIOD ** (2 * (channels // 2) / width)
    table = np.where(channels % 2 == 0, np.sin(angles), np.cos(angles))
    return torch.as_tensor(table, dtype=torch.float32)


def table(kind: Positions, grid: tuple[int, int], width: int, prefix: int, planes: int = 1) -> Tensor:
    """Initial positions of prefix tokens and patches: [prefix + L, D].

    sincos: zeros for the prefix. sincos1d: numbers run on over prefix and patches. learned: N(0, .02). planes: images
    of one channel that lie one above the other in the grid. sincos then gives each the same places, and adds to all of
    a channel the 1-D embedding of its number (fixed, where arXiv 2309.16088 learns it).
    """
    if kind == "sincos":
        places = sincos((grid[0] // planes, grid[1]), width)
        if planes > 1:
            places = (sincos1d(planes, width)[:, None] + places).flatten(0, 1)
        return torch.cat([torch.zeros(prefix, width), places])
    count = prefix + grid[0] * grid[1]
    if kind == "sincos1d":
        return sincos1d(count, width)
    return torch.nn.init.normal_(torch.empty(count, width), std=0.02)
