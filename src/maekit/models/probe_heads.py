"""What a probe trains on top of a frozen encoder.

Legend: N images, T patch tokens, D feature width, Y classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_HEAD_WIDTH = 64  # of an attention head, as in ViTs
_HEAD_STD = 0.01  # of a probe's initial weights in arXiv 2111.06377's released code


class LinearProbe(nn.Module):
    """BatchNorm without affine parameters, then a linear layer (arXiv 2111.06377, appendix A.1)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False, eps=1e-6)
        self.linear = _linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        """features: [N, D] → logits [N, Y]."""
        return self.linear(self.norm(features))


class AttentiveProbe(nn.Module):
    """One learned query attends to the patch tokens; a linear layer reads what it gathers (arXiv 2202.03026).

    Tokens pass a BatchNorm without affine parameters first, as in arXiv 2401.08541: without it, what all tokens of a
    masked autoencoder share drowns what they differ in.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.heads = max(heads for heads in range(1, max(1, width // _HEAD_WIDTH) + 1) if width % heads == 0)
        self.norm = nn.BatchNorm1d(width, affine=False, eps=1e-6)
        self.query = nn.Parameter(torch.randn(width) * 0.02)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.linear = _linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: [N, T, D] → logits [N, Y]."""
        tokens = self.norm(tokens.flatten(0, 1)).view_as(tokens)
        query = self.query.expand(len(tokens), 1, -1)
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (query, self.key(tokens), self.value(tokens))
        )
        gathered = F.scaled_dot_product_attention(query.to(key.dtype), key, value)
        return self.linear(gathered.transpose(1, 2).flatten(1))


def _linear(width: int, classes: int) -> nn.Linear:
    linear = nn.Linear(width, classes)
    nn.init.normal_(linear.weight, std=_HEAD_STD)
    nn.init.zeros_(linear.bias)
    return linear
