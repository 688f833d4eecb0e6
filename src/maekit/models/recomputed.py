"""Linear layers after a norm or a GELU, whose input is computed again in the backward pass and not kept until then.

A norm or a GELU costs next to nothing beside the product that follows, and its output is as large as what is kept
anyway: of a transformer block's activations these are three eighths. Forward passes are those of the plain layers, bit
for bit. A compiler decides by itself what to keep, so where one is at work, and without gradients, the plain layers
are called.
"""

from typing import Any

import torch
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional as F


def norm_linear(norm: nn.LayerNorm, linear: nn.Linear, tokens: Tensor) -> Tensor:
    """`linear(norm(tokens))`. tokens: [..., D]."""
    if _plainly(tokens):
        return linear(norm(tokens))
    return _NormLinear.apply(tokens, norm.weight, norm.bias, linear.weight, linear.bias, norm.eps)


def gelu_linear(linear: nn.Linear, hidden: Tensor) -> Tensor:
    """`linear(gelu(hidden))`. hidden: [..., D]."""
    if _plainly(hidden):
        return linear(F.gelu(hidden))
    return _GeluLinear.apply(hidden, linear.weight, linear.bias)


def norm_mlp(norm: nn.LayerNorm, mlp: Mlp, tokens: Tensor) -> Tensor:
    """`mlp(norm(tokens))`, of an MLP with GELU and neither dropout nor norm of its own. tokens: [..., D]."""
    return gelu_linear(mlp.fc2, norm_linear(norm, mlp.fc1, tokens))


def _plainly(tokens: Tensor) -> bool:
    return torch.compiler.is_compiling() or not (torch.is_grad_enabled() and tokens.requires_grad)


class _GeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        return F.linear(F.gelu(hidden), weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (gradient,) = gradients
        hidden, weight = ctx.saved_tensors
        of_gelu, of_weight, of_bias = _linear_backward(gradient, F.gelu(hidden), weight)
        return torch.ops.aten.gelu_backward(of_gelu.to(hidden.dtype), hidden), of_weight, of_bias


class _NormLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        # autocast has norms in float32, whatever comes
        given = tokens.float() if torch.is_autocast_enabled(tokens.device.type) else tokens
        normed, mean, deviation = torch.native_layer_norm(
            given, scale.shape, scale.to(given.dtype), shift.to(given.dtype), eps
        )
        ctx.save_for_backward(tokens, scale, shift, weight, mean, deviation)
        return F.linear(normed, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, None]:
        (gradient,) = gradients
        tokens, scale, shift, weight, mean, deviation = ctx.saved_tensors
        given = tokens.to(mean.dtype)
        factors = scale.to(given.dtype), shift.to(given.dtype)
        normed = torch.addcmul(factors[1], (given - mean).mul_(deviation), factors[0])
        of_norm, of_weight, of_bias = _linear_backward(gradient, normed, weight)
        of_tokens, of_scale, of_shift = torch.ops.aten.native_layer_norm_backward(
            of_norm.to(given.dtype), given, scale.shape, mean, deviation, *factors, [True, True, True]
        )
        return of_tokens.to(tokens.dtype), of_scale.to(scale.dtype), of_shift.to(shift.dtype), of_weight, of_bias, None


def _linear_backward(gradient: Tensor, given: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of what a linear layer was given, of its weight and of its bias."""
    rows = gradient.flatten(0, -2)
    of_weight = rows.t() @ given.flatten(0, -2).to(rows.dtype)
    return gradient @ weight.to(gradient.dtype), of_weight.to(weight.dtype), rows.sum(0, dtype=weight.dtype)
