"""Layers whose input is computed again: the plain layers' values and gradients, in less memory."""

import pytest
import torch
from timm.layers import Mlp
from torch import nn
from torch.nn import functional as F

from maekit.models.recomputed import gelu_linear, norm_linear, norm_mlp

PLAIN = {
    "norm_linear": lambda norm, linear, tokens: linear(norm(tokens)),
    "gelu_linear": lambda _, linear, tokens: linear(F.gelu(tokens)),
}
OURS = {"norm_linear": norm_linear, "gelu_linear": lambda _, linear, tokens: gelu_linear(linear, tokens)}


@pytest.fixture(params=PLAIN)
def kind(request):
    return request.param


def layers(dtype=torch.float32):
    torch.manual_seed(0)
    norm, linear = nn.LayerNorm(16, eps=1e-5).to(dtype), nn.Linear(16, 24).to(dtype)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm, linear, torch.randn(3, 5, 16, dtype=dtype, requires_grad=True)


def said(function, dtype=torch.float32, half=False):
    """Output, and gradients of tokens and parameters."""
    norm, linear, tokens = layers(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        output = function(norm, linear, tokens)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    (output * weights).sum().backward()
    gradients = [tokens.grad, *(p.grad for p in linear.parameters()), *(p.grad for p in norm.parameters())]
    return output.detach(), [gradient for gradient in gradients if gradient is not None]


@pytest.mark.parametrize(("dtype", "half", "bound"), [(torch.float64, False, 1e-12), (torch.float32, False, 1e-5),
                                                     (torch.float32, True, 3e-2)])  # fmt: skip
def test_values_are_equal_and_gradients_close(kind, dtype, half, bound):
    output, gradients = said(OURS[kind], dtype, half)
    plain, known = said(PLAIN[kind], dtype, half)
    assert torch.equal(output, plain)
    assert len(gradients) == len(known) >= 3
    for gradient, expected in zip(gradients, known, strict=True):
        assert gradient.dtype == expected.dtype
        torch.testing.assert_close(gradient, expected, atol=bound, rtol=bound)


def test_gradients_are_those_of_finite_differences(kind):
    norm, linear, tokens = layers(torch.float64)
    assert torch.autograd.gradcheck(lambda t: OURS[kind](norm, linear, t), (tokens,))


def kept(function):
    """Bytes kept for the backward pass beside parameters and what came in."""
    norm, linear, tokens = layers()
    known = {t.untyped_storage().data_ptr() for t in (tokens, *norm.parameters(), *linear.parameters())}
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = function(norm, linear, tokens)
    assert output.requires_grad
    return sum(size for pointer, size in storages.items() if pointer not in known)


def test_the_input_of_the_product_is_not_kept(kind):
    tokens = 3 * 5
    assert kept(PLAIN[kind]) >= tokens * 16 * 4
    assert kept(OURS[kind]) <= tokens * 2 * 4  # a mean and a deviation of each


def test_without_gradients_the_plain_layers_are_called(kind):
    norm, linear, tokens = layers()
    with torch.no_grad():
        assert torch.equal(OURS[kind](norm, linear, tokens), PLAIN[kind](norm, linear, tokens))
        assert not OURS[kind](norm, linear, tokens).grad_fn


def test_an_mlp_is_compiled_without_a_break():
    norm, _, tokens = layers()
    mlp = Mlp(16, 32)
    compiled = torch.compile(norm_mlp, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(norm, mlp, tokens), mlp(norm(tokens)))
    torch.testing.assert_close(norm_mlp(norm, mlp, tokens), mlp(norm(tokens)))
