"""Secondary masking: a share of a Swin's visible units becomes a token."""

import functools
from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from maekit.models.swin import SWIN
from tiny_families import SIZES
from tiny_families import SWIN as TINY


@functools.cache
def tiny_encoder() -> nn.Module:
    return SWIN.build(SIZES[TINY])


@settings(max_examples=30, deadline=None)
@given(
    key=st.integers(-(2**63), 2**63 - 1), ratio=st.floats(0.01, 0.99), visible=st.integers(2, 20).map(lambda n: 2 * n)
)
def test_secondary_masking_replaces_as_many_in_every_image(key, ratio, visible):
    adapter = SWIN.adapter(tiny_encoder(), replace(SIZES[TINY], secondary_ratio=ratio))
    replaced = adapter.replaced(torch.tensor([key, 7]), visible)
    assert replaced.sum(dim=1).tolist() == [max(1, int(visible * ratio))] * 2
    assert not replaced.all()
