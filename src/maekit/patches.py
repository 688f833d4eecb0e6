"""Images as patches, and the two directions between masks and patch numbers.

Legend: N images, C channels, H W pixels, L patches (rows x columns of the grid, raster order), V visible, P = unit
height x unit width x C values of a patch, in the order row, column, channel (as arXiv 2111.06377's released code has).
A *unit* is what a mask hides as one: a ViT's patch, or a block of several.
"""

import torch
from torch import Tensor

from maekit.config.model import check_divides as check_divides
from maekit.errors import ModelError


def grid_view(images: Tensor, unit: tuple[int, int]) -> Tensor:
    """images [N, C, H, W] as a view [N, rows, columns, unit height, unit width, C]; nothing is copied."""
    height, width = unit
    blocks = images.unflatten(3, (-1, width)).unflatten(2, (-1, height))
    return blocks.permute(0, 2, 4, 3, 5, 1)


def patchify(images: Tensor, unit: tuple[int, int]) -> Tensor:
    """images [N, C, H, W] → patches [N, L, P]. Raises ModelError where the unit does not divide H and W."""
    check_divides((images.shape[2], images.shape[3]), unit)
    return grid_view(images, unit).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, unit: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """patches [N, L, P] → images [N, C, H, W]; the inverse of `patchify`."""
    (height, width), (rows, columns) = unit, grid
    blocks = patches.unflatten(2, (height, width, -1)).unflatten(1, (rows, columns))
    return blocks.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def take_patches(images: Tensor, unit: tuple[int, int], index: Tensor) -> Tensor:
    """Only the patches that are asked for: images [N, C, H, W], index [N, V] int64 → [N, V, P]."""
    view = grid_view(images, unit)
    columns = view.shape[2]
    image = torch.arange(index.shape[0], device=index.device)[:, None]
    return view[image, index // columns, index % columns].flatten(2)


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """tokens [N, L, D] (or [1, L, D] for all images), index [N, V] int64 → [N, V, D]."""
    return tokens.expand(index.shape[0], -1, -1).gather(1, index[:, :, None].expand(-1, -1, tokens.shape[-1]))


def split(masked: Tensor, hidden: int | None = None) -> tuple[Tensor, Tensor]:
    """Numbers of the visible [N, V] and of the hidden [N, L - V] patches, each ascending, int64.

    masked: bool [N, L], True = hidden. hidden: how many are hidden in each row, where the caller knows: it saves a
    wait for the device. Raises ModelError where it is not given and rows differ, or where a row shows or hides nothing.
    """
    if hidden is None:
        hidden = hidden_in_each(masked)
    order = masked.to(torch.uint8).argsort(dim=1, stable=True)
    visible = masked.shape[1] - hidden
    return order[:, :visible], order[:, visible:]


def refine(masked: Tensor, grid: tuple[int, int], parts: int) -> Tensor:
    """A mask of units as one of the patches in them: bool [N, L], grid (rows, columns) → [N, L * parts**2]."""
    if parts == 1:
        return masked
    return masked.view(-1, *grid).repeat_interleave(parts, dim=1).repeat_interleave(parts, dim=2).flatten(1)


def hidden_in_each(masked: Tensor) -> int:
    """The number of hidden patches, which must be one for all rows and leave something to see and to predict."""
    if masked.dtype is not torch.bool or masked.ndim != 2:
        raise ModelError(f"mask: must be bool [N, L], True = hidden; it is {masked.dtype} {list(masked.shape)}")
    counts = masked.sum(dim=1)
    least, most = int(counts.min()), int(counts.max())
    if least != most:
        raise ModelError(f"mask: must hide as many patches in every image of a batch; here {least} to {most}")
    if not 0 < least < masked.shape[1]:
        raise ModelError(f"mask: must hide some patches and leave some; here {least} of {masked.shape[1]}")
    return least
