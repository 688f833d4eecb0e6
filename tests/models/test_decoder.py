"""Decoders: what they leave out changes nothing in what they say."""

import math

import pytest
import torch
from timm.models.vision_transformer import Block
from torch import nn
from torch.nn import functional as F

import tiny
from maekit.config import MaskConfig
from maekit.errors import ModelError
from maekit.masking import draw
from maekit.models import decoder as decoders
from maekit.models.decoder import ConvTransposeHead
from maekit.models.family import Latents
from maekit.patches import patchify, split, take
from maekit.targets import Geometry

GRID, PATCH, ENCODER_WIDTH = (3, 4), (2, 3, 3), 24
GEOMETRY = Geometry((6, 12), PATCH[:2], GRID, PATCH[2], (0.5,) * 3, (0.5,) * 3)


def build(prefix=1, **changes):
    torch.manual_seed(0)
    decoder = decoders.build(
        tiny.decoder_config(**{"depth": 3, **changes}),
        encoder_width=ENCODER_WIDTH,
        encoder_depth=5,
        prefix=prefix,
        geometry=GEOMETRY,
        predicts=math.prod(PATCH),
    )
    for parameter in decoder.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    return decoder


def encoded(prefix=1, maps=0):
    """(latents as an encoder gives them, numbers of the hidden patches)."""
    visible, hidden = split(draw(MaskConfig(ratio=0.6), GRID, torch.arange(2)))
    outputs = [torch.randn(2, prefix + visible.shape[1], ENCODER_WIDTH) for _ in range(max(maps, 1))]
    return Latents(outputs[-1], prefix=prefix, index=visible, maps=tuple(outputs) if maps else ()), hidden


def in_the_papers_words(decoder, latents, prefix):
    """All tokens in raster order through timm's own blocks, and the head on all of them."""
    seen = decoder.embed(latents.tokens)
    places = latents.index[:, :, None].expand(-1, -1, seen.shape[2])
    tokens = decoder.mask_token.expand(2, GRID[0] * GRID[1], -1).scatter(1, places, seen[:, prefix:])
    tokens = torch.cat([seen[:, :prefix], tokens], dim=1) + decoder.positions
    for ours in decoder.blocks:
        block = Block(ours.norm1.normalized_shape[0], ours.attn.heads, qkv_bias=True)
        block.load_state_dict(ours.state_dict())
        block.norm1.eps, block.norm2.eps = ours.norm1.eps, ours.norm2.eps
        tokens = block(tokens)
    return decoder.head(tokens[:, prefix:])


@pytest.mark.parametrize("prefix", [0, 1, 4])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("changes", [{}, {"positions": "sincos1d", "head": "norm_conv_transpose"}])
def test_the_papers_decoder_equals_the_plain_computation(prefix, depth, changes):
    decoder = build(prefix, depth=depth, **changes)
    latents, hidden = encoded(prefix)
    expected = take(in_the_papers_words(decoder, latents, prefix), hidden)
    torch.testing.assert_close(decoder(latents, hidden), expected, atol=1e-4, rtol=1e-4)


def test_a_transposed_convolution_paints_the_same_pixels_token_by_token():
    torch.manual_seed(0)
    head = ConvTransposeHead(16, PATCH)
    nn.init.normal_(head.unconv.bias)
    tokens = torch.randn(2, GRID[0] * GRID[1], 16)
    values = head.norm(head.linear(tokens)).transpose(1, 2).unflatten(2, GRID)
    images = F.conv_transpose2d(values, head.unconv.weight, head.unconv.bias, stride=PATCH[:2])
    torch.testing.assert_close(head(tokens), patchify(images, PATCH[:2]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("maps", [0, 3])
def test_a_share_that_a_cross_decoder_predicts_equals_that_share_of_all(maps):
    decoder = build(kind="cross", feature_maps=maps)
    latents, hidden = encoded(maps=maps)
    everything = decoder(latents, hidden)
    torch.testing.assert_close(decoder(latents, hidden[:, 1::2]), everything[:, 1::2], atol=1e-5, rtol=1e-5)


def test_cross_attention_is_attention():
    decoder = build(kind="cross", depth=1)
    latents, hidden = encoded()
    block, queries = decoder.blocks[0], decoder.mask_token + take(decoder.positions[:, 1:], hidden)
    attention = nn.MultiheadAttention(16, 2, kdim=ENCODER_WIDTH, vdim=ENCODER_WIDTH, batch_first=True)
    (key, value), (key_bias, value_bias) = block.kv.weight.chunk(2), block.kv.bias.chunk(2)
    with torch.no_grad():
        attention.q_proj_weight.copy_(block.q.weight)
        attention.k_proj_weight.copy_(key)
        attention.v_proj_weight.copy_(value)
        attention.in_proj_bias.copy_(torch.cat([block.q.bias, key_bias, value_bias]))
        attention.out_proj.load_state_dict(block.proj.state_dict())
    queries = queries + attention(block.norm1(queries), latents.tokens, latents.tokens)[0]
    expected = decoder.head(queries + block.mlp(block.norm2(queries)))
    torch.testing.assert_close(decoder(latents, hidden), expected, atol=1e-5, rtol=1e-5)


def test_each_cross_block_reads_its_own_mixture_of_feature_maps():
    decoder = build(kind="cross", feature_maps=3, depth=2)
    assert decoder.maps == (1, 2, 4)  # of an encoder of five blocks, the last one included
    latents, hidden = encoded(maps=3)
    expected = decoder.mask_token + take(decoder.positions[:, 1:], hidden)
    for block, weights in zip(decoder.blocks, decoder.mix, strict=True):
        context = sum(weight * output for weight, output in zip(weights, latents.maps, strict=True))
        expected = block(expected, context)
    torch.testing.assert_close(decoder(latents, hidden), decoder.head(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", range(6))
def test_feature_maps_are_spread_evenly_and_end_with_the_last(count):
    maps = build(kind="cross", feature_maps=count).maps
    assert len(set(maps)) == count
    assert list(maps) == sorted(maps)
    assert all(0 <= number < 5 for number in maps)
    assert not maps or maps[-1] == 4


def test_one_map_more_than_there_are_blocks_is_what_goes_into_the_first():
    assert build(kind="cross", feature_maps=6).maps == (-1, 0, 1, 2, 3, 4)


@pytest.mark.parametrize("changes", [{}, {"kind": "cross"}, {"kind": "cross", "feature_maps": 2}])
def test_recomputing_activations_gives_the_same_gradients(changes):
    decoder = build(**changes)
    latents, hidden = encoded(maps=changes.get("feature_maps", 0))
    gradients = []
    for decoder.grad_checkpointing in (False, True):
        decoder.zero_grad()
        decoder(latents, hidden).square().mean().backward()
        gradients.append({name: p.grad for name, p in decoder.named_parameters() if p.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


def test_initial_weights_are_the_papers():
    torch.manual_seed(0)
    config = tiny.decoder_config(width=64, kind="cross", feature_maps=4, depth=20)
    sizes = {"geometry": GEOMETRY, "predicts": math.prod(PATCH)}
    decoder = decoders.build(config, encoder_width=64, encoder_depth=5, prefix=1, **sizes)
    assert decoder.mask_token.std().item() == pytest.approx(0.02, rel=0.4)
    assert decoder.mix.std().item() == pytest.approx(0.5, rel=0.3)
    assert not decoder.positions.requires_grad
    for module in decoder.modules():
        if isinstance(module, nn.Linear):
            bound = (6 / sum(module.weight.shape)) ** 0.5
            assert 0.9 * bound < module.weight.abs().max() <= bound
            assert (module.bias == 0).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"heads": 3}, "model.decoder.heads: 3 do not divide the decoder's width 16"),
        ({"feature_maps": 2}, "belong to kind cross"),
        ({"predicted_share": 0.5}, "belong to kind cross"),
        ({"kind": "cross", "feature_maps": 7}, "feature_maps: 7 of an encoder of 5 blocks; at most 6"),
        ({"width": 18}, "multiple of 4, not 18"),
        ({"kind": "linear", "predicted_share": 0.5}, "predicted_share: kind linear has no such option"),
        ({"kind": "linear", "head": "norm_conv_transpose"}, "head: kind linear has no such option"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(ModelError, match=words):
        build(**changes)
