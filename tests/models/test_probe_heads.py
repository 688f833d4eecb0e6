"""Heads that probes train."""

import pytest
import torch
from torch import nn

from maekit.models.encoder import ImageEncoder
from maekit.models.probe_heads import AttentiveProbe, EfficientProbe, LinearProbe
from tiny_families import KINDS


def test_linear_probe_is_standardised_features_times_small_weights():
    torch.manual_seed(0)
    probe = LinearProbe(64, 10)
    assert [name for name, _ in probe.named_parameters()] == ["linear.weight", "linear.bias"]
    assert 0.008 < float(probe.linear.weight.detach().std()) < 0.012
    features = torch.randn(32, 64) * 5 + 3
    standard = (features - features.mean(0)) / (features.var(0, correction=0) + 1e-6).sqrt()
    torch.testing.assert_close(probe(features), probe.linear(standard), atol=1e-5, rtol=0)


def test_attentive_probe_is_multi_head_attention_of_one_query():
    torch.manual_seed(0)
    probe = AttentiveProbe(128, 3).eval()
    assert probe.heads == 2
    oracle = nn.MultiheadAttention(128, 2, batch_first=True)
    with torch.no_grad():
        oracle.in_proj_weight.copy_(torch.cat([torch.eye(128), probe.key.weight, probe.value.weight]))
        oracle.in_proj_bias.copy_(torch.cat([torch.zeros(128), probe.key.bias, probe.value.bias]))
        oracle.out_proj.weight.copy_(torch.eye(128))
        oracle.out_proj.bias.zero_()
        tokens = torch.randn(4, 9, 128)
        scaled = tokens / (1 + 1e-6) ** 0.5  # BatchNorm's statistics are still 0 and 1
        gathered, _ = oracle(probe.query.expand(4, 1, -1), scaled, scaled)
        torch.testing.assert_close(probe(tokens), probe.linear(gathered[:, 0]), atol=1e-5, rtol=0)


def test_efficient_probe_is_attention_of_each_query_over_channels_of_its_own():
    torch.manual_seed(0)
    probe = EfficientProbe(12, 3, queries=4).eval()
    nn.init.normal_(probe.queries)  # far from uniform attention
    tokens = torch.randn(5, 9, 12)
    scaled = tokens / (1 + 1e-6) ** 0.5  # BatchNorm's statistics are still 0 and 1
    parts = [
        nn.functional.scaled_dot_product_attention(query.expand(5, 1, 12), scaled, scaled @ weight.T)[:, 0]
        for query, weight in zip(probe.queries, probe.value.weight.split(3), strict=True)
    ]
    torch.testing.assert_close(probe(tokens), probe.linear(torch.cat(parts, dim=1)), atol=1e-5, rtol=0)


def test_efficient_probe_has_the_parameters_of_its_paper():
    probe = EfficientProbe(768, 1000)
    assert len(probe.queries) == 32
    assert sum(one.numel() for one in probe.parameters()) == 32 * 768 + 768 * 768 + 768 * 1000 + 1000  # under 1.4 M


def test_queries_that_do_not_divide_the_width_are_fewer():
    assert [len(EfficientProbe(width, 2, queries=32).queries) for width in (192, 96, 36, 16, 7)] == [32, 32, 18, 16, 7]


@pytest.mark.parametrize("kind", ["vit", "swin uniform", "hiera"])
def test_queries_attend_to_the_tokens_of_every_family(kind):
    encoder = ImageEncoder(KINDS[kind], mean=(0.5,) * 3, std=(0.5,) * 3).eval()
    tokens = encoder.features(torch.rand(2, 3, *KINDS[kind].image_hw), "patches")
    probe = EfficientProbe(encoder.width, 5, queries=3).eval()
    assert len(probe.queries) == (2 if encoder.width % 3 else 3)
    assert probe(tokens).shape == (2, 5)
    torch.testing.assert_close(probe.attention(tokens).sum(dim=2), torch.ones(2, len(probe.queries)))


@pytest.mark.parametrize("kind", [AttentiveProbe, EfficientProbe])
def test_queries_find_the_token_that_tells_where_a_mean_cannot(kind):
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (256,), generator=draw)
    tokens = torch.randn(256, 16, 8, generator=draw)
    place = torch.randint(16, (256,), generator=draw)
    tokens[torch.arange(256), place, 0] = 8.0  # marks the token whose second value is the label
    tokens[torch.arange(256), place, 1] = labels * 2.0 - 1
    torch.manual_seed(0)
    probe = kind(8, 2)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(probe(tokens), labels).backward()
        optimizer.step()
    accuracy = float((probe.eval()(tokens).argmax(1) == labels).float().mean())
    assert accuracy > 0.95
    assert all(parameter.grad is not None for parameter in probe.parameters())
