"""Position biases of packed tokens, pair by pair."""

import functools

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maekit import masking
from maekit.config import MaskConfig
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


LAST_STAGES = [(128, 16), (192, 12), (256, 8), (256, 16), (512, 8)]
"""Image sizes and windows."""


def last_stage(size: int, window: int, images: int, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A block of the last stage, and the places [N, 2, h, w] of its tokens, in its own grid, under random masks."""
    units = size // 16
    keys = torch.arange(images) + 1000 * seed
    masked = masking.draw(MaskConfig(kind="one_in_2x2", ratio=0.75), (units, units), keys)
    numbers = (~masked).nonzero()[:, 1].view(images, -1)
    blocks = numbers // units // 2 * (units // 2) + numbers % units // 2
    packed = torch.zeros_like(numbers).scatter(1, blocks, numbers).view(images, units // 2, units // 2)
    places = torch.stack([packed // units, packed % units], dim=1).double()
    places = F.avg_pool2d(places, 2) / 2
    return swin(size, window).layers[3].blocks[0], places.float()


def offsets(block: nn.Module, places: Tensor) -> Tensor:
    """[B, 2, T, T]: query less key, window by window."""
    length = block.window_size[0] // 2
    windows = places.unfold(2, length, length).unfold(3, length, length)  # [N, 2, rows, columns, length, length]
    windows = windows.permute(0, 2, 3, 1, 4, 5).flatten(4).flatten(0, 2)
    return windows[..., :, None] - windows[..., None, :]


def grid_of_offsets(block: nn.Module) -> tuple[Tensor, Tensor]:
    reach = block.window_size[0] - 1
    down, right = torch.meshgrid(torch.arange(-reach, reach + 1.0), torch.arange(-reach, reach + 1.0), indexing="ij")
    return down.reshape(-1, 1), right.reshape(-1, 1)


@pytest.mark.parametrize(("size", "window"), LAST_STAGES)
def test_the_last_stage_reads_between_the_entries_of_its_table(size, window):
    """A table that is linear in the offset has its values at the true ones, halves and eighths as well."""
    block, places = last_stage(size, window, images=3)
    down, right = grid_of_offsets(block)
    table = torch.cat([0.5 * down - 0.25 * right + 1, down * right / 64], dim=1)
    found = pair_biases(block, places, unit=1, steps=8).of(table)
    apart = offsets(block, places)
    expected = torch.stack([0.5 * apart[:, 0] - 0.25 * apart[:, 1] + 1, apart[:, 0] * apart[:, 1] / 64], dim=1)
    torch.testing.assert_close(found, expected)
    assert (apart % 1 != 0).any()


def test_whole_offsets_take_their_entry_itself():
    block, _ = last_stage(256, 16, images=1)
    table = torch.randn_like(block.attn.relative_position_bias_table)
    rows = torch.arange(0, 8, 2).float()
    whole = torch.stack(torch.meshgrid(rows, rows, indexing="ij"))[None]
    found = [pair_biases(block, whole, unit=1, steps=steps).of(table) for steps in (1, 8)]
    assert torch.equal(*found)


@pytest.mark.parametrize(("size", "window"), LAST_STAGES)
def test_a_smooth_bias_that_is_trained_on_packed_images_is_there_for_whole_ones(size, window):
    """Trained to give a plane at the pairs of packed images alone, the table is that plane at every offset."""
    block, places = last_stage(size, window, images=32 if size == 512 else 96)
    down, right = grid_of_offsets(block)
    count = len(down)
    biases = pair_biases(block, places, unit=1, steps=8)
    design = biases.of(torch.eye(count)).permute(0, 2, 3, 1).reshape(-1, count)
    apart = offsets(block, places).permute(0, 2, 3, 1).reshape(-1, 2)
    wanted = 0.3 * apart[:, 0] - 0.2 * apart[:, 1]
    normal, right_side = design.T.double() @ design.double(), design.T.double() @ wanted.double()
    assert torch.linalg.matrix_rank(normal) == count  # no entry is free
    table = torch.linalg.solve(normal, right_side)
    torch.testing.assert_close(table.float(), (0.3 * down - 0.2 * right)[:, 0], atol=1e-3, rtol=0)
