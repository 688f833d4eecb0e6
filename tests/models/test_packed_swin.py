"""Position biases of packed tokens, pair by pair."""

import functools

import pytest
import timm
import torch
from torch import nn

from maekit.models.packed_swin import pair_biases


@functools.cache
def swin(size: int, window: int) -> nn.Module:
    return timm.create_model("swin_tiny_patch4_window7_224", img_size=size, window_size=window, embed_dim=24)


@pytest.mark.parametrize(("size", "window"), [(192, 4), (192, 6), (192, 12), (256, 8), (256, 16)])
@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("shifted", [0, 1])
def test_biases_are_the_tables_at_true_offsets(size, window, stage, shifted):
    """Where windows cut through units, and where they do not: the entry of the clamped true offset."""
    block, unit = swin(size, window).layers[stage].blocks[shifted], 4 >> stage
    units = size // 32
    grid = units * unit
    blocks = torch.arange(units).repeat_interleave(unit)
    within = torch.arange(unit).repeat(units)
    corner = torch.randint(2, (1, 2, units, units), generator=torch.Generator().manual_seed(window))
    corner = corner.repeat_interleave(unit, 2).repeat_interleave(unit, 3)
    rows = (2 * blocks[:, None] + corner[0, 0]) * unit + within[:, None]
    columns = (2 * blocks[None, :] + corner[0, 1]) * unit + within[None, :]
    table = torch.randn_like(block.attn.relative_position_bias_table)
    found = pair_biases(block, torch.stack([rows, columns])[None].float(), unit).of(table)

    length, shift = block.window_size[0] // 2, block.shift_size[0] // 2
    reach = block.attn.window_size[0] - 1
    number = 0
    for top in range(0, grid, length):
        for left in range(0, grid, length):
            spots = [(y + shift, x + shift) for y in range(top, top + length) for x in range(left, left + length)]
            for query in range(0, len(spots), 5):
                for key in range(0, len(spots), 3):
                    (y, x), (y_key, x_key) = spots[query], spots[key]
                    if (y >= grid) != (y_key >= grid) or (x >= grid) != (x_key >= grid):
                        assert (found[number, :, query, key] == float("-inf")).all()
                        continue
                    one, other = (y % grid, x % grid), (y_key % grid, x_key % grid)
                    down = int((rows[one] - rows[other]).clamp(-reach, reach)) + reach
                    right = int((columns[one] - columns[other]).clamp(-reach, reach)) + reach
                    assert torch.equal(found[number, :, query, key], table[down * (2 * reach + 1) + right])
            number += 1
    assert number == len(found)
