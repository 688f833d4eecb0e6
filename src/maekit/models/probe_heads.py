"""What a probe trains on top of a frozen encoder.

Legend: N images, T patch tokens, D feature width, Q queries, Y classes.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_HEAD_WIDTH = 64  # of an attention head, as in ViTs
_HEAD_STD = 0.01  # of a probe's initial weights in arXiv 2111.06377's released code


class BatchNorm(nn.BatchNorm1d):
    """Over what no gradient is for, without affine parameters; of several processes, over the images of all."""

    def __init__(self, width: int) -> None:
        super().__init__(width, affine=False, eps=1e-6)
        self.sum_over_all: Callable[[Tensor], Tensor] | None = None

    def forward(self, features: Tensor) -> Tensor:
        """features: [N, D] → [N, D]."""
        if not self.training or self.sum_over_all is None:
            return super().forward(features)
        exact = features.double()  # so that the number of processes leaves no trace in float32
        count = self.sum_over_all(torch.tensor(float(len(features)), device=features.device))
        mean = self.sum_over_all(exact.sum(dim=0)) / count
        variance = self.sum_over_all((exact - mean).square().sum(dim=0)) / count
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.float(), self.momentum)
        self.running_var.lerp_((variance * count / (count - 1)).float(), self.momentum)
        return ((exact - mean) * (variance + self.eps).rsqrt()).to(features.dtype)


class LinearProbe(nn.Module):
    """BatchNorm without affine parameters, then a linear layer (arXiv 2111.06377, appendix A.1)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = BatchNorm(width)
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
        self.norm = BatchNorm(width)
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


class EfficientProbe(nn.Module):
    """Several learned queries attend to the patch tokens, each gathering channels of its own (arXiv 2506.10178).

    The form taken: queries have the full width and are compared with the tokens as they are, without projections of
    queries or keys; one projection makes the values, without bias, width kept, and query q weighs the q-th of Q equal
    parts of its channels. What all have gathered is one vector [D], which a linear layer reads. As for AttentiveProbe,
    and unlike the paper, which standardises what was gathered, tokens pass the BatchNorm first.
    """

    def __init__(self, width: int, classes: int, queries: int = 32) -> None:
        """queries: of them the most that divide the width are there."""
        super().__init__()
        self.norm = BatchNorm(width)
        self.queries = nn.Parameter(torch.randn(queries_within(queries, width), width) * 0.02)
        self.value = nn.Linear(width, width, bias=False)
        self.linear = _linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: [N, T, D] → logits [N, Y]."""
        tokens = self.norm(tokens.flatten(0, 1)).view_as(tokens)
        attention = self.attention(tokens).unsqueeze(2)  # [N, Q, 1, T]
        values = self.value(tokens).unflatten(2, (len(self.queries), -1)).transpose(1, 2)  # [N, Q, T, D / Q]
        return self.linear((attention.to(values.dtype) @ values).flatten(1))

    def attention(self, tokens: Tensor) -> Tensor:
        """Standardised tokens [N, T, D] → [N, Q, T], each query's weights, whose sum is 1."""
        return (self.queries @ tokens.mT / tokens.shape[2] ** 0.5).softmax(dim=2)


def queries_within(queries: int, width: int) -> int:
    """The most queries, of so many, that share the channels of a width evenly."""
    return max(count for count in range(1, min(queries, width) + 1) if width % count == 0)


def _linear(width: int, classes: int) -> nn.Linear:
    linear = nn.Linear(width, classes)
    nn.init.normal_(linear.weight, std=_HEAD_STD)
    nn.init.zeros_(linear.bias)
    return linear
