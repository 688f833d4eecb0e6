"""Decoders: from the visible patches' latents to the hidden patches' pixels.

Legend: N images, L patches, V visible, Q predicted (all hidden ones, or a share), K prefix tokens, E encoder width,
D decoder width, P values of a patch.
"""

from math import prod

import torch
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from maekit.config import DecoderConfig
from maekit.errors import ModelError
from maekit.models import positions
from maekit.models.family import Latents, run_block
from maekit.models.recomputed import norm_linear, norm_mlp
from maekit.models.vit import initialise
from maekit.patches import take
from maekit.targets import Geometry

_OF_BLOCKS = ("positions", "head", "predicted_share", "feature_maps")  # what a linear decoder has not
_FLYEGLE_EPS = 1e-12  # of the norm over predicted values, whatever the blocks have


def build(
    config: DecoderConfig, *, encoder_width: int, encoder_depth: int, prefix: int, geometry: Geometry, predicts: int
) -> nn.Module:
    """A decoder of the configured kind, initialised as the paper's.

    predicts: P, of pixels as many as a patch has values. Raises ModelError where its sizes do not fit each other.
    """
    if config.kind == "linear":
        plain = DecoderConfig(kind="linear")
        foreign = [name for name in _OF_BLOCKS if getattr(config, name) != getattr(plain, name)]
        if foreign:
            raise ModelError(f"model.decoder.{foreign[0]}: kind linear has no such option; leave it out")
        return LinearDecoder(encoder_width, predicts)
    if config.width % config.heads:
        raise ModelError(f"model.decoder.heads: {config.heads} do not divide the decoder's width {config.width}")
    if config.kind == "self":
        if config.predicted_share != 1 or config.feature_maps:
            raise ModelError("model.decoder: predicted_share and feature_maps belong to kind cross")
        decoder: nn.Module = SelfDecoder(config, encoder_width, prefix, geometry, predicts)
    else:
        if config.feature_maps > encoder_depth + 1:
            raise ModelError(
                f"model.decoder.feature_maps: {config.feature_maps} of an encoder of {encoder_depth} blocks; at most "
                f"{encoder_depth + 1}, their outputs and what goes into the first"
            )
        decoder = CrossDecoder(config, encoder_width, encoder_depth, prefix, geometry, predicts)
    initialise(decoder)
    if isinstance(decoder, CrossDecoder) and decoder.mix is not None:
        nn.init.normal_(decoder.mix, std=config.feature_maps**-0.5)
    return decoder


class SelfDecoder(nn.Module):
    """The paper's decoder (arXiv 2111.06377, section 3): visible latents and mask tokens attend to each other.

    Attention is blind to order, so tokens keep the order [prefix, visible, hidden] and only their positions tell where
    they belong. What the last block makes of visible tokens is never looked at: its queries are the hidden ones alone.
    """

    def __init__(
        self, config: DecoderConfig, encoder_width: int, prefix: int, geometry: Geometry, predicts: int
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(encoder_width, config.width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.positions = _positions(config, geometry, prefix)
        self.blocks = nn.ModuleList(SelfBlock(config.width, config.heads, config.norm_eps) for _ in range(config.depth))
        self.head = _head(config, geometry, predicts)
        self.grad_checkpointing = False
        self._prefix = prefix

    def forward(self, latents: Latents, predicted: Tensor) -> Tensor:
        """latents of the visible patches, predicted [N, Q] → predictions [N, Q, P]."""
        assert latents.index is not None
        prefix, places = self.positions[:, : self._prefix], self.positions[:, self._prefix :]
        tokens = self.embed(latents.tokens)
        seen = torch.cat([prefix.expand(tokens.shape[0], -1, -1), take(places, latents.index)], dim=1)
        asked = self.mask_token + take(places, predicted)
        tokens = torch.cat([tokens + seen, asked], dim=1)
        for block in self.blocks[:-1]:
            tokens = run_block(block, self.grad_checkpointing, tokens)
        tokens = run_block(self.blocks[-1], self.grad_checkpointing, tokens, predicted.shape[1])
        return self.head(tokens)


class CrossDecoder(nn.Module):
    """CrossMAE's decoder (arXiv 2401.14391): each hidden patch asks the visible latents, not the other hidden ones.

    A prediction depends on no other prediction, so any share of the hidden patches can be left out. With feature maps,
    each block reads a mixture, by learned weights, of the outputs of several encoder blocks. They come through the
    encoder's own norm, so that it is trained; the released code mixes them raw, with a norm for each decoder block.
    """

    def __init__(
        self,
        config: DecoderConfig,
        encoder_width: int,
        encoder_depth: int,
        prefix: int,
        geometry: Geometry,
        predicts: int,
    ) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.positions = _positions(config, geometry, prefix)
        self.blocks = nn.ModuleList(
            CrossBlock(config.width, encoder_width, config.heads, config.norm_eps) for _ in range(config.depth)
        )
        self.maps = _evenly(config.feature_maps, encoder_depth)
        self.mix = nn.Parameter(torch.zeros(config.depth, config.feature_maps)) if config.feature_maps else None
        self.head = _head(config, geometry, predicts)
        self.grad_checkpointing = False
        self._prefix = prefix

    def forward(self, latents: Latents, predicted: Tensor) -> Tensor:
        """latents of the visible patches, predicted [N, Q] → predictions [N, Q, P]."""
        queries = self.mask_token + take(self.positions[:, self._prefix :], predicted)
        if self.mix is None:
            contexts = [latents.tokens] * len(self.blocks)
        else:
            contexts = list(torch.einsum("bm,mnvd->bnvd", self.mix, torch.stack(latents.maps)))
        for block, context in zip(self.blocks, contexts, strict=True):
            queries = run_block(block, self.grad_checkpointing, queries, context)
        return self.head(queries)


class LinearDecoder(nn.Module):
    """SimMIM's (arXiv 2111.09886): one layer on the tokens of an encoder that saw mask tokens."""

    def __init__(self, encoder_width: int, predicts: int) -> None:
        super().__init__()
        self.head = nn.Linear(encoder_width, predicts)
        initialise(self)

    def forward(self, latents: Latents, predicted: Tensor) -> Tensor:
        """latents of all L units in raster order, predicted [N, Q] → predictions [N, Q, P]."""
        return self.head(take(latents.patches, predicted))


class SelfBlock(nn.Module):
    """A pre-norm transformer block whose queries may be the last few tokens alone. Parameter names are timm's."""

    def __init__(self, width: int, heads: int, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, tokens: Tensor, queries: int | None = None) -> Tensor:
        """tokens [N, T, D] → [N, T, D], or [N, queries, D] for the last `queries` tokens, which equal those of all."""
        asked = tokens if queries is None else tokens[:, -queries:]
        asked = asked + self.attn(tokens, self.norm1, queries)
        return asked + norm_mlp(self.norm2, self.mlp, asked)


class SelfAttention(nn.Module):
    """Multi-head attention over all tokens, for all of them or the last few; the norm before it is the caller's."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, norm: nn.LayerNorm, queries: int | None = None) -> Tensor:
        """tokens [N, T, D], not yet normed → [N, T or queries, D]."""
        width = tokens.shape[2]
        if queries is None:
            query, key, value = norm_linear(norm, self.qkv, tokens).chunk(3, dim=2)
        else:
            tokens, weight, bias = norm(tokens), self.qkv.weight, self.qkv.bias
            query = F.linear(tokens[:, -queries:], weight[:width], bias[:width])
            key, value = F.linear(tokens, weight[width:], bias[width:]).chunk(2, dim=2)
        return self.proj(_attend(query, key, value, self.heads))


class CrossBlock(nn.Module):
    """Queries attend to a context, then an MLP; both pre-norm. The context is the encoder's, already normed."""

    def __init__(self, width: int, context_width: int, heads: int, norm_eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(context_width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """queries [N, Q, D], context [N, K + V, E] → [N, Q, D]."""
        key, value = self.kv(context).chunk(2, dim=2)
        asked = norm_linear(self.norm1, self.q, queries)
        queries = queries + self.proj(_attend(asked, key, value, self.heads))
        return queries + norm_mlp(self.norm2, self.mlp, queries)


class ConvTransposeHead(nn.Module):
    """FlyEgle/MAE-pytorch's prediction: Linear, LayerNorm over the predicted values, transposed convolution.

    A transposed convolution whose stride is its kernel maps each token to its patch alone, so it is a product.
    """

    def __init__(self, width: int, patch_values: tuple[int, int, int]) -> None:
        super().__init__()
        height, width_px, channels = patch_values
        values = height * width_px * channels
        self.linear = nn.Linear(width, values)
        self.norm = nn.LayerNorm(values, eps=_FLYEGLE_EPS)
        self.unconv = nn.ConvTranspose2d(values, channels, (height, width_px), stride=(height, width_px))

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [N, Q, D] → [N, Q, P]."""
        hidden = self.norm(self.linear(tokens))
        weight = self.unconv.weight.permute(0, 2, 3, 1)  # values, height, width, channels
        patches = hidden @ weight.flatten(1)
        assert self.unconv.bias is not None
        return patches + self.unconv.bias.repeat(weight.shape[1] * weight.shape[2])


def _head(config: DecoderConfig, geometry: Geometry, predicts: int) -> nn.Module:
    if config.head == "linear":
        return nn.Sequential(nn.LayerNorm(config.width, eps=config.norm_eps), nn.Linear(config.width, predicts))
    patch_values = (*geometry.patch, geometry.channels)
    if predicts != prod(patch_values):
        raise ModelError(
            f"model.decoder.head norm_conv_transpose: paints pixels, and the target has {predicts} values; take linear"
        )
    return ConvTransposeHead(config.width, patch_values)


def _positions(config: DecoderConfig, geometry: Geometry, prefix: int) -> nn.Parameter:
    table = positions.table(config.positions, geometry.grid, config.width, prefix, geometry.planes)
    return nn.Parameter(table[None], requires_grad=config.positions == "learned")


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    query, key, value = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def _evenly(count: int, depth: int) -> tuple[int, ...]:
    """Numbers of `count` of `depth` blocks, evenly spread, the last one included; -1 is what goes into the first."""
    if count > depth:
        return tuple(range(-1, depth))
    return tuple(depth - 1 - round(i * depth / count) for i in reversed(range(count))) if count else ()
