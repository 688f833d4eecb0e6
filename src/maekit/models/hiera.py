"""Hiera encoders (timm's `hiera_*`, arXiv 2306.00989): hidden mask units are dropped before the first block.

A mask unit is a square of 8x8 tokens of the first stage, 32 px. Attention of the first stages stays inside units, so
leaving units out changes nothing there; attention of the last stages is global.

- The last of the three poolings waits for fine-tuning, as in the paper's released code: in pretraining a unit ends as
  2x2 tokens, and the decoder predicts 16-px patches. Pooling has no parameters, so the encoder is the native model all
  the while. With `pool_units` it pools as it always does, and one token stands for a whole unit.
- *Multi-scale fusion* (section 3.2 and its released code): the output of each stage before a pooling, brought to the
  last one's tokens and width by a linear layer of its own, is summed with that, then normed. The adapter has them.
- timm's mask means True = keep; `encode_visible` is the only place that turns ours.

Legend: N images, L mask units, V visible, M first-stage tokens of a unit, R patches of a unit, D width.
"""

from functools import partial

import torch
from timm.models.hiera import Hiera, HieraBlock
from torch import Tensor, nn
from torch.nn import functional as F

from maekit.config import ModelConfig
from maekit.errors import ModelError
from maekit.models.family import Family, Latents, Shown, call, run_block
from maekit.models.vit import initialise
from maekit.patches import check_divides


class FusionAdapter(nn.Module):
    """For each stage that a pooling follows, the layer that makes one token of those that the poolings would join."""

    def __init__(self, encoder: Hiera, parts: int) -> None:
        """parts: patches side by side in a unit once all is pooled."""
        super().__init__()
        self.parts = parts
        widths = [encoder.blocks[end].mlp.fc2.out_features for end in encoder.stage_ends]
        rows, columns = encoder.mask_unit_size
        sizes = []
        for width in widths:
            if rows == parts:
                break
            sizes.append(rows // parts * (columns // parts) * width)
            rows, columns = rows // encoder.q_stride[0], columns // encoder.q_stride[1]
        self.heads = nn.ModuleList(nn.Linear(size, widths[-1]) for size in sizes)
        initialise(self)

    def forward(self, stages: list[Tensor]) -> Tensor:
        """Each stage's output [N, V, rows, columns, D of the stage] → [N, V, R, D], patches in raster order."""
        *earlier, last = stages
        fused: Tensor = last.flatten(2, 3)
        for head, stage in zip(self.heads, earlier, strict=False):  # a stage that no pooling follows is not fused
            blocks = stage.unflatten(3, (self.parts, -1)).unflatten(2, (self.parts, -1)).transpose(3, 4)
            fused = fused + head(blocks.flatten(4).flatten(2, 3))
        return fused


class _Hiera(Family):
    name = "hiera"
    options = frozenset({"width", "pool_units", "layer_scale"})

    def build(self, config: ModelConfig, *, drop_path: float = 0.0, masked: bool = False) -> Hiera:
        """See `Family.build`. Initialised as the paper's released masked autoencoder, which `initialise` is too."""
        encoder: Hiera = self.create(config, drop_path_rate=drop_path)
        if config.decoder.feature_maps:
            raise ModelError("model.decoder.feature_maps: a Hiera's blocks have no common width; leave it at 0")
        heads = encoder.blocks[0].attn.heads
        if config.width is not None and config.width % heads:
            raise ModelError(f"model.width: {config.width} is not a multiple of the encoder's {heads} heads")
        check_divides(config.image_hw, self.unit(encoder, config), "mask unit")
        initialise(encoder)
        return encoder

    def adapter(self, encoder: Hiera, config: ModelConfig) -> nn.Module:
        return FusionAdapter(encoder, self.parts(config))

    def unit(self, encoder: Hiera, config: ModelConfig) -> tuple[int, int]:
        height, width = (a * b for a, b in zip(encoder.patch_stride, encoder.mask_unit_size, strict=True))
        return int(height), int(width)

    def parts(self, config: ModelConfig) -> int:
        return 1 if config.pool_units else 2

    def encode_visible(self, encoder: Hiera, adapter: nn.Module, shown: Shown) -> Latents:
        assert isinstance(adapter, FusionAdapter)
        # The patch embedding's kernel is wider than its stride: hidden pixels are zeros to visible neighbours.
        keep, visible = ~shown.masked, shown.visible
        embedded = encoder.patch_embed(shown.images, mask=keep.view(-1, 1, *encoder.mask_spatial_shape))
        tokens = _take_units(encoder.unroll(encoder._pos_embed(embedded)), visible, keep.shape[1])
        stages = []
        parts, last_pool = adapter.parts, int(encoder.stage_ends[-2]) + 1
        for number, block in enumerate(encoder.blocks):
            run = partial(call, block, _unpooled) if parts > 1 and number == last_pool else block
            tokens = run_block(run, encoder.grad_checkpointing, tokens)
            if number in encoder.stage_ends:
                order = min(number, last_pool - 1) if parts > 1 else number  # unpooled, as the stage before
                stages.append(encoder.reroll(tokens, order, mask=visible))
        fused = encoder.head.norm(adapter(stages))
        return Latents(fused.flatten(1, 2), index=_patches_of(visible, int(encoder.mask_spatial_shape[1]), parts))

    def encode(self, encoder: Hiera, images: Tensor, *, blocks: int = 1) -> Latents:
        """See `Family.encode`. Blocks of one width are those of the last stage."""
        norm = encoder.head.norm
        if blocks == 1:
            return Latents(norm(encoder.forward_features(images)))
        common = encoder.stage_ends[-1] - encoder.stage_ends[-2]
        if blocks > common:
            raise ModelError(f"features of the last {blocks} blocks: only {common} have the last one's width")
        outputs = encoder.forward_intermediates(
            images, indices=blocks, coarse=False, output_fmt="NHWC", intermediates_only=True
        )
        return Latents(torch.stack([norm(output.flatten(1, 2)) for output in outputs]).mean(dim=0))

    def take_norm(self, encoder: Hiera) -> nn.Module:
        norm, encoder.head.norm = encoder.head.norm, nn.Identity()
        return norm


HIERA = _Hiera()


def _unpooled(block: HieraBlock, tokens: Tensor) -> Tensor:
    """A block that pools, without its pooling: [N, T, D] → [N, T, D of its stage]."""
    normed, attention = block.norm1(tokens), block.attn
    # without a projection timm joins the largest and the mean of what is pooled: of one value each, that value
    tokens = torch.cat([tokens, tokens], dim=-1) if block.proj is None else block.proj(normed)
    query, key, value = attention.qkv(normed).unflatten(2, (3, attention.heads, -1)).permute(2, 0, 3, 1, 4)
    attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    tokens = tokens + block.drop_path1(block.ls1(attention.proj(attended)))
    return tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))


def _patches_of(visible: Tensor, columns: int, parts: int) -> Tensor:
    """Raster numbers of the patches in units: [N, V] → [N, V * parts**2], those of a unit side by side."""
    if parts == 1:
        return visible
    inside = torch.arange(parts, device=visible.device)
    rows = (visible // columns * parts)[:, :, None, None] + inside[:, None]
    across = (visible % columns * parts)[:, :, None, None] + inside
    return (rows * (columns * parts) + across).flatten(1)


def _take_units(tokens: Tensor, visible: Tensor, units: int) -> Tensor:
    """Only the visible units' tokens, unrolled: [N, M * L, D] → [N, M * V, D].

    Unrolling puts tokens of the same place in their unit side by side, units in raster order. Equal to timm's own
    selection by a boolean mask, which waits for the device.
    """
    by_place = tokens.view(len(tokens), -1, units, tokens.shape[-1])
    index = visible[:, None, :, None].expand(-1, by_place.shape[1], -1, tokens.shape[-1])
    return by_place.gather(2, index).flatten(1, 2)
