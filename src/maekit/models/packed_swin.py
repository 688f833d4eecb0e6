"""Swin's stages on packed tokens: what is left of an image where one unit of every 2x2 is visible (see `swin`).

The blocks' own parameters and drop path are used; windows and shifts are half as large, and position biases are looked
up for the places that the tokens came from, between the entries of a table where those places are means.

Legend: N images, h w rows and columns of the packed grid, B windows of all images, T tokens of a window, D width. A
*cell* is a square of tokens of one unit that no window's border cuts; M cells of a window, c its side in tokens.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock, window_partition, window_reverse
from timm.models.swin_transformer_v2 import SwinTransformerV2, SwinTransformerV2Block
from torch import Tensor, nn
from torch.nn import functional as F

from maekit.models.family import call, run_block

_MERGED_STEPS = 8  # a mean of four whole places, of a grid half as fine, lies on eighths

Swin: TypeAlias = SwinTransformer | SwinTransformerV2
Block: TypeAlias = SwinTransformerBlock | SwinTransformerV2Block


def stages(encoder: Swin, tokens: Tensor, places: Tensor) -> Tensor:
    """All stages on packed tokens [N, h, w, D]. places: [N, 2, h, w] float32, row and column of each token's patch."""
    unit, steps = 1 << (len(encoder.layers) - 2), 1
    for stage in encoder.layers:
        if not isinstance(stage.downsample, nn.Identity):
            steps *= _MERGED_STEPS if unit == 1 else 1
            places, unit = F.avg_pool2d(places, 2) / 2, max(1, unit // 2)
        tokens = stage.downsample(tokens)
        biases: dict[tuple[int, int], PairBiases] = {}  # a stage has two kinds of blocks: shifted and not
        for block in stage.blocks:
            if block.shift_size not in biases:
                biases[block.shift_size] = pair_biases(block, places, unit, steps)
            tokens = run_block(partial(call, block, _block), stage.grad_checkpointing, tokens, biases[block.shift_size])
    return tokens


@dataclass(frozen=True)
class PairBiases:
    """Which entries of a block's bias table the pairs of a window's tokens take.

    Two cells' distance decides all entries of their tokens, so images look up whole cells, not tokens: a gather, and a
    sum in the backward pass, over c^4 times fewer and as much longer rows.

    rows: int64 [R, c, c, c, c], for each distance of two cells the entries of their tokens' pairs (query, then key).
    cells: int64 [B, Mh, Mw, Mh, Mw], the row of each pair of cells; R where only the shift brought them together.
    window: rows and columns of the native window, from which the table's are. steps: what is looked up lies so many
    steps from one offset of the table to the next, interpolated between them.
    """

    rows: Tensor
    cells: Tensor
    window: tuple[int, int]
    steps: int = 1

    def of(self, table: Tensor) -> Tensor:
        """table [entries, heads] → [B, heads, T, T]."""
        rows = F.embedding(self.rows, self._between(table))
        apart = F.pad(rows.flatten(1), (0, 0, 0, 1), value=float("-inf"))
        pairs = F.embedding(self.cells, apart).unflatten(5, rows.shape[1:])
        pairs = pairs.permute(0, 9, 1, 5, 2, 6, 3, 7, 4, 8)
        return pairs.flatten(6, 9).flatten(2, 5)

    def _between(self, table: Tensor) -> Tensor:
        """The table, bilinearly interpolated to entries at every step: [entries, heads] of more entries."""
        if self.steps == 1:
            return table
        offsets = [2 * length - 1 for length in self.window]
        finer = [(count - 1) * self.steps + 1 for count in offsets]
        grid = table.unflatten(0, offsets).permute(2, 0, 1)[None]
        return F.interpolate(grid, finer, mode="bilinear", align_corners=True)[0].permute(1, 2, 0).flatten(0, 1)


def pair_biases(block: Block, places: Tensor, unit: int, steps: int = 1) -> PairBiases:
    """For the tokens' true places [N, 2, h, w]; unit: tokens in a row of a unit, at this stage.

    steps: places are whole multiples of one part in so many. Where they are fractions, a unit is a single token.
    """
    window, shift = _halved(block)
    cell = math.gcd(unit, window[0], shift[0]), math.gcd(unit, window[1], shift[1])
    corners = places[:, :, :: cell[0], :: cell[1]] * steps
    shift = shift[0] // cell[0], shift[1] // cell[1]
    below, beyond = (
        torch.arange(length, device=places.device) >= length - by
        for length, by in zip(corners.shape[2:], shift, strict=True)
    )
    side = (2 * below[:, None] + beyond[None, :]).expand(len(places), 1, -1, -1)
    corners = torch.cat([corners.roll((-shift[0], -shift[1]), (2, 3)), side], dim=1).permute(0, 2, 3, 1)
    corners = window_partition(corners, (window[0] // cell[0], window[1] // cell[1]))
    distances = corners[:, :, :, None, None] - corners[:, None, None]  # [B, Mh, Mw, Mh, Mw, 3], query less key

    entries, numbers = [], []
    for axis in (0, 1):
        reach, width = (block.attn.window_size[axis] - 1) * steps, cell[axis]
        far = -(-(reach + width - 1) // width)  # cells this far apart have no pair that the table reaches
        numbers.append((distances[..., axis] / width).round().clamp(-far, far) + far)
        within = torch.arange(width, device=places.device)
        between = torch.arange(-far, far + 1, device=places.device) * width
        offsets = between[:, None, None] + within[:, None] - within
        entries.append(offsets.clamp(-reach, reach) + reach)
    rows = entries[0][:, None, :, None, :, None] * (2 * (block.attn.window_size[1] - 1) * steps + 1)
    rows = (rows + entries[1][None, :, None, :, None, :]).flatten(0, 1)
    cells = numbers[0] * len(entries[1]) + numbers[1]
    cells = cells.masked_fill(distances[..., 2] != 0, len(rows)).long()
    return PairBiases(rows, cells, tuple(block.attn.window_size), steps)


def _halved(block: Block) -> tuple[tuple[int, int], tuple[int, int]]:
    """Window and shift on the packed grid."""
    (height, width), (down, right) = block.window_size, block.shift_size
    return (height // 2, width // 2), (down // 2, right // 2)


def _block(block: Block, tokens: Tensor, biases: PairBiases) -> Tensor:
    """timm's block on packed tokens [N, h, w, D], with `_attend` for its attention."""
    if isinstance(block, SwinTransformerV2Block):
        tokens = tokens + block.drop_path1(block.norm1(_attend(block, tokens, biases)))
        return tokens + block.drop_path2(block.norm2(block.mlp(tokens)))
    tokens = tokens + block.drop_path1(_attend(block, block.norm1(tokens), biases))
    return tokens + block.drop_path2(block.mlp(block.norm2(tokens)))


def _attend(block: Block, tokens: Tensor, biases: PairBiases) -> Tensor:
    window, (down, right) = _halved(block)
    height, width = tokens.shape[1:3]
    windows = window_partition(tokens.roll((-down, -right), (1, 2)), window).flatten(1, 2)
    query, key, value, scale, table = _project(block.attn, windows)
    bias = biases.of(table).to(query.dtype)
    dropout = block.attn.attn_drop.p if block.training else 0.0
    seen = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout, scale=scale)
    seen = block.attn.proj_drop(block.attn.proj(seen.transpose(1, 2).flatten(2)))
    merged = window_reverse(seen.unflatten(1, window), window, height, width)
    return merged.roll((down, right), (1, 2))


def _project(attention: Any, windows: Tensor) -> tuple[Tensor, Tensor, Tensor, float, Tensor]:
    """windows [B, T, D] → query, key, value [B, heads, T, D / heads], scale, and the bias table [entries, heads]."""
    heads, bias, version2 = attention.num_heads, attention.qkv.bias, hasattr(attention, "cpb_mlp")
    if version2 and attention.q_bias is not None:
        bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
    projected = F.linear(windows, attention.qkv.weight, bias)
    query, key, value = projected.reshape(*windows.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    if not version2:
        return query, key, value, attention.scale, attention.relative_position_bias_table
    # Swin V2 (arXiv 2111.09883): cosine attention, and a table that a small network computes from log-spaced offsets
    steepness = attention.logit_scale.clamp(max=math.log(100)).exp()
    query = (F.normalize(query, dim=-1) * steepness).to(value.dtype)
    key = F.normalize(key, dim=-1).to(value.dtype)
    table = 16 * attention.cpb_mlp(attention.relative_coords_table).view(-1, heads).sigmoid()
    return query, key, value, 1.0, table
