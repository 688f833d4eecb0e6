"""Heads that probes train."""

import torch
from torch import nn

from maekit.models.probe_heads import AttentiveProbe, LinearProbe


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


def test_attentive_probe_finds_the_token_that_tells_where_a_mean_cannot():
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (256,), generator=draw)
    tokens = torch.randn(256, 16, 8, generator=draw)
    place = torch.randint(16, (256,), generator=draw)
    tokens[torch.arange(256), place, 0] = 8.0  # marks the token whose second value is the label
    tokens[torch.arange(256), place, 1] = labels * 2.0 - 1
    torch.manual_seed(0)
    probe = AttentiveProbe(8, 2)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(probe(tokens), labels).backward()
        optimizer.step()
    accuracy = float((probe.eval()(tokens).argmax(1) == labels).float().mean())
    assert accuracy > 0.95
    assert all(parameter.grad is not None for parameter in probe.parameters())
