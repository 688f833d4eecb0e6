"""ViT encoders (timm's `vision_transformer` and `deit`): only visible patches are embedded and pass the blocks.

With rotary positions (axial RoPE: arXiv 2403.13298, and 2303.11331 for masked encoders) the encoder is timm's `Eva`, of
the sizes that the ViT's name and options say. Each image's visible patches turn by the angles of their own places.

Legend: N images, L patches, V visible, K prefix tokens (class, registers), D width, T encoder tokens.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from timm.layers import LayerNorm, PatchEmbed
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from maekit.config import ModelConfig
from maekit.errors import ModelError
from maekit.models import positions
from maekit.models.family import Family, Latents, Shown, run_block
from maekit.models.stem import ConvStem
from maekit.patches import check_divides, take, take_patches

_ROTARY: dict[str, Any] = {
    "mlp_ratio": 4.0, "attn_type": "rope", "use_abs_pos_emb": False, "use_rot_pos_emb": True,
    "rope_grid_indexing": "xy", "rope_temperature": 100.0, "use_fc_norm": False,
}  # fmt: skip
"""Arguments by which timm's Eva is a ViT but for its positions, whose angles are those of arXiv 2403.13298 (axial)."""
_EVA = "eva_giant_patch14_224"  # all of its sizes are given; timm's names of rotary ViTs cannot be without layer scale


class ChannelEmbed(PatchEmbed):  # type: ignore[misc]
    """The patch embedding of one channel, for images of many: timm's, of the channels one above the other."""

    @staticmethod
    def stacked(images: Tensor) -> Tensor:
        """images [N, C, H, W] → [N, 1, C * H, W], a view."""
        return images.flatten(1, 2)[:, None]

    def forward(self, images: Tensor) -> Tensor:
        """images [N, C, H, W] → tokens [N, L, D], channel by channel."""
        return super().forward(self.stacked(images))


class _ViT(Family):
    name = "vit"
    options = frozenset(
        {
            "patch_size", "width", "depth", "heads", "class_token", "register_tokens", "positions", "norm_eps",
            "layer_scale", "channel_tokens", "stem",
        }
    )  # fmt: skip

    def build(self, config: ModelConfig, *, drop_path: float = 0.0, masked: bool = False) -> VisionTransformer | Eva:
        """See `Family.build`. Initialised as arXiv 2111.06377's released code does: see `initialise`."""
        more: dict[str, Any] = {"embed_layer": ChannelEmbed} if config.channel_tokens else {}
        if config.stem == "conv":
            more["embed_layer"] = ConvStem
        if config.norm_eps is not None:
            more["norm_layer"] = partial(LayerNorm, eps=config.norm_eps)
        if config.channel_tokens and config.positions == "rotary":
            raise ModelError("model.positions rotary: does not tell the channels of model.channel_tokens apart")
        if config.stem == "conv" and (config.channel_tokens or config.positions == "rotary"):
            raise ModelError("model.stem conv: has neither model.channel_tokens nor model.positions rotary")
        encoder: VisionTransformer | Eva = self.create(config, drop_path_rate=drop_path, **more)
        _check(encoder, config)
        initialise(encoder)
        _place(encoder, config)
        return encoder

    def timm_model(self, config: ModelConfig) -> tuple[str, dict[str, Any]]:
        """See `Family.timm_model`. Its norm is before the pooling, which is by the class token where there is one."""
        more = {"class_token": config.class_token, "global_pool": "token" if config.class_token else "avg"}
        if config.positions != "rotary":
            tokens = {"reg_tokens": config.register_tokens, "fc_norm": False}
            return config.architecture, {**config.timm_arguments(), **more, **tokens}
        plain = _plain(config)
        heads = plain.blocks[0].attn.num_heads
        if plain.embed_dim // heads % 4:
            raise ModelError(
                f"model.positions rotary: needs heads whose width is a multiple of 4, not {plain.embed_dim // heads}"
            )
        own: dict[str, Any] = {
            "patch_size": plain.patch_embed.patch_size,
            "embed_dim": plain.embed_dim,
            "depth": len(plain.blocks),
            "num_heads": heads,
            "num_reg_tokens": config.register_tokens,
        }
        return _EVA, {**config.timm_arguments(), **more, **own, **_ROTARY}

    def unit(self, encoder: nn.Module, config: ModelConfig) -> tuple[int, int]:
        height, width = encoder.patch_embed.patch_size  # type: ignore[union-attr, misc]
        return int(height), int(width)

    def encode_visible(self, encoder: VisionTransformer | Eva, adapter: nn.Module, shown: Shown) -> Latents:
        tokens = _with_prefix(encoder, _embed(encoder, shown), shown.visible)
        outputs, tokens = _blocks(encoder, tokens, shown)
        maps = tuple(encoder.norm(output) for output in outputs)
        return Latents(encoder.norm(tokens), prefix=encoder.num_prefix_tokens, index=shown.visible, maps=maps)

    def encode(self, encoder: VisionTransformer | Eva, images: Tensor, *, blocks: int = 1) -> Latents:
        depth, prefix = len(encoder.blocks), encoder.num_prefix_tokens
        if blocks == 1:
            return Latents(encoder.forward_features(images), prefix=prefix)
        if blocks > depth:
            raise ModelError(f"features of the last {blocks} blocks: the encoder has {depth}")
        outputs = encoder.forward_intermediates(
            images,
            indices=blocks,
            return_prefix_tokens=prefix > 0,
            norm=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        # timm gives pairs (patch tokens, prefix tokens) where it is asked for the prefix
        tokens = torch.stack([torch.cat(output[::-1], dim=1) if prefix else output for output in outputs])
        return Latents(tokens.mean(dim=0), prefix=prefix)


VIT = _ViT()


def initialise(module: nn.Module) -> None:
    """Xavier-uniform for every Linear, zeros for biases, ones and zeros for LayerNorm, N(0, .02) for tokens.

    The patch projection, or each convolution of a stem, is treated as a Linear.
    This is the released code's choice (arXiv 2111.06377); timm's differs.
    """
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear):
            nn.init.xavier_uniform_(child.weight)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.LayerNorm) and child.elementwise_affine:
            nn.init.ones_(child.weight)
            nn.init.zeros_(child.bias)
        elif isinstance(child, nn.Conv2d) and "patch_embed.proj" in name:
            nn.init.xavier_uniform_(child.weight.view(child.weight.shape[0], -1))
            if child.bias is not None:
                nn.init.zeros_(child.bias)
    for name, parameter in module.named_parameters():
        if name.rsplit(".", 1)[-1] in {"cls_token", "reg_token", "mask_token"}:
            nn.init.normal_(parameter, std=0.02)


def _plain(config: ModelConfig) -> VisionTransformer:
    """timm's ViT of the config's name and sizes, with a table of positions, without values."""
    with torch.device("meta"):
        encoder: VisionTransformer = VIT.create(replace(config, positions="learned"))
    _check(encoder, config)
    return encoder


def _check(encoder: VisionTransformer | Eva, config: ModelConfig) -> None:
    if isinstance(encoder, Eva):
        _check_rotary(encoder, config)
        return
    plain = (
        isinstance(encoder, VisionTransformer)
        and isinstance(encoder.patch_embed, PatchEmbed)
        and isinstance(encoder.pos_embed, nn.Parameter)
        and encoder.attn_pool is None
        and not encoder.dynamic_img_size
        and not hasattr(encoder, "dist_token")
    )
    if not plain:
        raise ModelError(
            f"model.encoder {config.encoder}: maekit takes ViTs with plain patch and position embeddings, without "
            "distillation token or attention pooling, such as vit_base_patch16_224"
        )
    check_divides(config.image_hw, VIT.unit(encoder, config))


def _check_rotary(encoder: Eva, config: ModelConfig) -> None:
    """Raises ModelError where the encoder would be another than the name's but for its positions."""
    sizes, plain = (
        sorted(tuple(p.shape) for name, p in one.named_parameters() if name != "pos_embed")
        for one in (encoder, _plain(config))
    )
    if sizes != plain:
        raise ModelError(
            f"model.positions rotary: {config.encoder} has parts that timm's ViT with rotary positions lacks; take a "
            "plain one, such as vit_base_patch16_224"
        )


def _place(encoder: VisionTransformer | Eva, config: ModelConfig) -> None:
    if config.positions == "rotary":  # computed by the encoder
        return
    grid = encoder.patch_embed.grid_size
    prefix = encoder.pos_embed.shape[1] - grid[0] * grid[1]
    table = positions.table(config.positions, grid, encoder.embed_dim, prefix, config.planes)
    encoder.pos_embed = nn.Parameter(table[None], requires_grad=config.positions == "learned")


def _embed(encoder: VisionTransformer | Eva, shown: Shown) -> Tensor:
    """The patch embedding of the visible patches alone: [N, V, D], equal to the convolution at those places."""
    embed, projection = encoder.patch_embed, encoder.patch_embed.proj
    if isinstance(embed, ConvStem):
        return take(embed.of_visible(shown.images, shown.masked), shown.visible)
    images = embed.stacked(shown.images) if isinstance(embed, ChannelEmbed) else shown.images
    patches = take_patches(images, embed.patch_size, shown.visible)
    weight = projection.weight.permute(0, 2, 3, 1).flatten(1)
    return embed.norm(nn.functional.linear(patches, weight, projection.bias))


def _with_prefix(encoder: VisionTransformer | Eva, tokens: Tensor, index: Tensor) -> Tensor:
    """Positions and prefix tokens as timm's `_pos_embed` has them, for the patches in `index`: [N, K + V, D]."""
    prefix = [p.expand(tokens.shape[0], -1, -1) for p in (encoder.cls_token, encoder.reg_token) if p is not None]
    if (table := encoder.pos_embed) is None:
        tokens = torch.cat([*prefix, tokens], dim=1)
    else:
        placed = table.shape[1] - encoder.patch_embed.num_patches  # prefix tokens that have a position of their own
        tokens = tokens + take(table[:, placed:], index)
        if prefix:
            head = torch.cat(prefix, dim=1)
            tokens = torch.cat([head + table[:, :placed] if placed else head, tokens], dim=1)
    return encoder.norm_pre(encoder.pos_drop(tokens))


def _blocks(encoder: VisionTransformer | Eva, tokens: Tensor, shown: Shown) -> tuple[list[Tensor], Tensor]:
    """The wanted blocks' outputs, and the last one's."""
    angles = None
    if isinstance(encoder, Eva):  # sines and cosines of the visible places, alike for all heads
        angles = take(encoder.rope.get_embed()[None], shown.visible)[:, None]
    outputs = [tokens] if -1 in shown.maps else []
    for number, block in enumerate(encoder.blocks):
        run = block if angles is None else partial(block, rope=angles)
        tokens = run_block(run, encoder.grad_checkpointing, tokens)
        if number in shown.maps:
            outputs.append(tokens)
    return outputs, tokens
