"""Costs as announced before a run, against a count by hand."""

import pytest
import torch

import tiny
from maekit.config import MaskConfig, TargetConfig
from maekit.models.cost import forward_gflop, parameter_count
from maekit.models.mae import MaskedAutoencoder

MEAN = STD = (0.5, 0.5, 0.5)
L, VISIBLE, HIDDEN, PATCH = 24, 6, 18, 48
D, DECODER = 32, 16


def block(width, tokens, queries):
    """Multiplications and additions of a transformer block of which `queries` of all tokens are looked at."""
    projections = queries * width * width + 2 * tokens * width * width + queries * width * width
    attention = 2 * queries * tokens * width
    mlp = 2 * queries * width * 4 * width
    return 2 * (projections + attention + mlp)


def linear(tokens, width, out):
    return 2 * tokens * width * out


@pytest.fixture
def model():
    target = TargetConfig(kind="raw")
    return MaskedAutoencoder(tiny.model_config(), target, MaskConfig(ratio=0.75), mean=MEAN, std=STD)


def test_a_masked_autoencoder_pays_for_visible_patches_and_hidden_queries_alone(model):
    encoder = linear(VISIBLE, PATCH, D) + 3 * block(D, 1 + VISIBLE, 1 + VISIBLE)
    decoder = linear(1 + VISIBLE, D, DECODER) + block(DECODER, 1 + L, 1 + L) + block(DECODER, 1 + L, HIDDEN)
    assert forward_gflop(model) * 1e9 == encoder + decoder + linear(HIDDEN, DECODER, PATCH)


def test_counting_leaves_the_model_as_it_was(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert parameter_count(model) == sum(value.numel() for value in before.values())
    forward_gflop(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())
