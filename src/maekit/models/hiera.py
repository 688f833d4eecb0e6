"""Hiera encoders (timm's `hiera_*`, arXiv 2306.00989): hidden mask units are dropped before the first block.

A mask unit is a square of 8x8 patches, 32 px, and becomes one token of the last stage. Attention of the first stages
stays inside units, so leaving units out changes nothing there; attention of the last stages is global.

- *Multi-scale fusion* (section 3.2 and its released code): the last block's output of each stage, brought to one token
  a unit and to the last stage's width by a linear layer of its own, is summed, then normed. The adapter has the layers.
- The released code does not pool before the last stage in pretraining, so that its decoder predicts 16-px patches. Here
  the encoder is the native model with all its pooling, and the decoder predicts whole units.
- timm's mask means True = keep; `_keep` is the only place that turns ours.

Legend: N images, L mask units, V visible, M tokens of a unit, D width.
"""

from typing import Any

import timm
import torch
from timm.models.hiera import Hiera
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from maekit.config import ModelConfig
from maekit.errors import ModelError
from maekit.models.family import Latents
from maekit.models.vit import initialise
from maekit.patches import check_divides

_MASKS = frozenset({"random", "block", "grid", "one_in_2x2", "painted"})
_FOREIGN = (
    "patch_size",
    "depth",
    "heads",
    "class_token",
    "register_tokens",
    "positions",
    "norm_eps",
    "window",
    "swin_method",
    "secondary_ratio",
)


class FusionAdapter(nn.Module):
    """For each stage but the last, the layer that makes one token of a unit's M tokens of that stage."""

    def __init__(self, encoder: Hiera) -> None:
        super().__init__()
        widths = [encoder.blocks[end].mlp.fc2.out_features for end in encoder.stage_ends]
        pooled = encoder.q_stride[0] * encoder.q_stride[1]
        self.heads = nn.ModuleList(
            nn.Linear(encoder.mu_size // pooled**stage * width, widths[-1]) for stage, width in enumerate(widths[:-1])
        )
        initialise(self)

    def forward(self, stages: list[Tensor]) -> Tensor:
        """Each stage's output [N, V, rows, columns, D of the stage], the last one's one token a unit → [N, V, D]."""
        *earlier, last = (stage.flatten(2) for stage in stages)
        fused: Tensor = last + sum(head(stage) for head, stage in zip(self.heads, earlier, strict=True))
        return fused


class _Hiera:
    name = "hiera"
    norm_before_mean = False

    def mask_kinds(self, config: ModelConfig) -> frozenset[str]:
        return _MASKS

    def build(self, config: ModelConfig, *, drop_path: float = 0.0, masked: bool = False) -> Hiera:
        """See `Family.build`. Initialised as the paper's released masked autoencoder, which `initialise` is too."""
        foreign = config.changed(*_FOREIGN)
        if foreign:
            raise ModelError(f"model.{foreign[0]}: {config.encoder} has no such option; leave it out")
        if config.decoder.feature_maps:
            raise ModelError("model.decoder.feature_maps: a Hiera's blocks have no common width; leave it at 0")
        overrides: dict[str, Any] = {} if config.width is None else {"embed_dim": config.width}
        try:
            encoder: Hiera = timm.create_model(
                config.encoder,
                pretrained=False,
                num_classes=0,
                img_size=config.image_hw,
                in_chans=config.channels,
                drop_path_rate=drop_path,
                **overrides,
            )
        except (AssertionError, TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
            reason = " ".join(str(error).split()) or "sizes that do not fit each other"
            raise ModelError(f"model.encoder {config.encoder}: {reason}") from None
        heads = encoder.blocks[0].attn.heads
        if config.width is not None and config.width % heads:
            raise ModelError(f"model.width: {config.width} is not a multiple of the encoder's {heads} heads")
        check_divides(config.image_hw, self.unit(encoder, config), "mask unit")
        initialise(encoder)
        return encoder

    def adapter(self, encoder: nn.Module, config: ModelConfig) -> nn.Module:
        assert isinstance(encoder, Hiera)
        return FusionAdapter(encoder)

    def unit(self, encoder: nn.Module, config: ModelConfig) -> tuple[int, int]:
        assert isinstance(encoder, Hiera)
        height, width = (a * b for a, b in zip(encoder.patch_stride, encoder.mask_unit_size, strict=True))
        return int(height), int(width)

    def latent_width(self, encoder: nn.Module, config: ModelConfig) -> int:
        return int(encoder.num_features)  # type: ignore[arg-type]

    def dense(self, config: ModelConfig) -> bool:
        return False

    def encode_visible(
        self,
        encoder: nn.Module,
        adapter: nn.Module,
        images: Tensor,
        masked: Tensor,
        visible: Tensor,
        *,
        maps: tuple[int, ...] = (),
        replaced: Tensor | None = None,
    ) -> Latents:
        """See `Family.encode_visible`."""
        assert isinstance(encoder, Hiera)
        # The patch embedding's kernel is wider than its stride: hidden pixels are zeros to visible neighbours.
        embedded = encoder.patch_embed(images, mask=_keep(masked).view(-1, 1, *encoder.mask_spatial_shape))
        tokens = _take_units(encoder.unroll(encoder._pos_embed(embedded)), visible, masked.shape[1])
        stages = []
        for number, block in enumerate(encoder.blocks):
            if encoder.grad_checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
            if number in encoder.stage_ends:
                stages.append(encoder.reroll(tokens, number, mask=visible))
        return Latents(encoder.head.norm(adapter(stages)), index=visible)

    def replaced(self, adapter: nn.Module, visible: Tensor, keys: Tensor) -> Tensor | None:
        return None

    def encode(self, encoder: nn.Module, images: Tensor, *, blocks: int = 1) -> Latents:
        """See `Family.encode`. Blocks of one width are those of the last stage."""
        assert isinstance(encoder, Hiera)
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

    def take_norm(self, encoder: nn.Module) -> nn.Module:
        assert isinstance(encoder, Hiera)
        norm: nn.Module = encoder.head.norm
        encoder.head.norm = nn.Identity()
        return norm


HIERA = _Hiera()


def _keep(masked: Tensor) -> Tensor:
    """timm's polarity: True = keep."""
    return ~masked


def _take_units(tokens: Tensor, visible: Tensor, units: int) -> Tensor:
    """Only the visible units' tokens, unrolled: [N, M * L, D] → [N, M * V, D].

    Unrolling puts tokens of the same place in their unit side by side, units in raster order. Equal to timm's own
    selection by a boolean mask, which waits for the device.
    """
    by_place = tokens.view(len(tokens), -1, units, tokens.shape[-1])
    index = visible[:, None, :, None].expand(-1, by_place.shape[1], -1, tokens.shape[-1])
    return by_place.gather(2, index).flatten(1, 2)
