"""Multinomial logistic regression on fixed features: a linear probe at its optimum.

Legend: N images, D feature width, Y classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from maekit.randomness import numpy_generator

_HELD_OUT = 0x68656C64  # keeps these draws apart from others with the same seed
_NEAR_ENOUGH = 1e-6  # to compare weight decays by what they predict
_CHUNK_ENTRIES = 1 << 26  # logits that exist at a time


@dataclass(frozen=True)
class Standardisation:
    """Mean and standard deviation of each feature, two of [D].

    It is what BatchNorm without affine parameters comes to when all training images are one batch.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Standardisation":
        """features: [N, D]."""
        variance, mean = torch.var_mean(features, dim=0, correction=0)
        return cls(mean, (variance + 1e-6).sqrt())

    def __call__(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.std


@dataclass(frozen=True)
class LogisticModel:
    """weight: [D, Y]. bias: [Y]."""

    weight: Tensor
    bias: Tensor

    def predict(self, features: Tensor) -> Tensor:
        """features: [N, D] → [N] int64."""
        return torch.cat([(part @ self.weight + self.bias).argmax(dim=1) for part in _chunks(features, self.weight)])


def fit(
    features: Tensor,
    labels: Tensor,
    *,
    classes: int,
    weight_decay: float,
    start: LogisticModel | None = None,
    tolerance: float = 1e-8,
) -> LogisticModel:
    """The minimum of mean cross-entropy + weight_decay / 2 |weight|², by full-batch L-BFGS.

    features: [N, D], whose dtype and device the work is done in. labels: [N] int64. The bias is not decayed, so the
    objective is scikit-learn's LogisticRegression with C = 1 / (N weight_decay). start: where to begin; None: zero.
    tolerance: the largest entry of the gradient, from which on the minimum counts as found.
    """
    if start is None:
        parameters = features.new_zeros(features.shape[1] + 1, classes)
    else:
        parameters = torch.cat([start.weight, start.bias[None]])
    optimizer = torch.optim.LBFGS(
        [parameters],
        max_iter=500,
        tolerance_grad=tolerance,
        tolerance_change=1e-13,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def evaluate() -> Tensor:
        value, parameters.grad = _objective(parameters, features, labels, weight_decay)
        return value

    optimizer.step(evaluate)
    return LogisticModel(parameters[:-1], parameters[-1])


@torch.no_grad()
def _objective(parameters: Tensor, features: Tensor, labels: Tensor, weight_decay: float) -> tuple[Tensor, Tensor]:
    """Value and gradient, summed over chunks of images so that a million of them fit."""
    weight, bias = parameters[:-1], parameters[-1]
    value, gradient = parameters.new_zeros(()), torch.zeros_like(parameters)
    chunks = _chunks(features, weight)
    for part, target in zip(chunks, labels.split(len(chunks[0])), strict=True):
        logarithms = (part @ weight + bias).log_softmax(dim=1)
        value -= logarithms.gather(1, target[:, None]).sum()
        residual = logarithms.exp()
        residual[torch.arange(len(part), device=part.device), target] -= 1
        gradient[:-1] += part.T @ residual
        gradient[-1] += residual.sum(dim=0)
    value, gradient = value / len(features), gradient / len(features)
    gradient[:-1] += weight_decay * weight
    return value + weight_decay / 2 * weight.square().sum(), gradient


def _chunks(features: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    return features.split(max(1, _CHUNK_ENTRIES // weight.shape[1]))


def choose_weight_decay(
    features: Tensor, labels: Tensor, *, classes: int, grid: Sequence[float], seed: int, share: float = 0.2
) -> float | None:
    """The weight decay of the grid that predicts a held-out part of the training images best.

    features: [N, D], labels: [N] int64. Of equals the strongest is taken. None where no class has an image to spare.
    """
    held_out = torch.from_numpy(stratified_part(labels.cpu().numpy(), share, seed)).to(labels.device)
    if not held_out.any():
        return None
    learnt, learnt_labels = features[~held_out], labels[~held_out]
    judged, judged_labels = features[held_out], labels[held_out]
    best, most, model = None, -1, None
    for weight_decay in sorted(grid, reverse=True):
        model = fit(
            learnt, learnt_labels, classes=classes, weight_decay=weight_decay, start=model, tolerance=_NEAR_ENOUGH
        )
        right = int((model.predict(judged) == judged_labels).sum())
        if right > most:
            best, most = weight_decay, right
    return best


def stratified_part(labels: "np.typing.NDArray[np.int64]", share: float, seed: int) -> "np.typing.NDArray[np.bool_]":
    """Whether each image is in a part that holds about this share of every class, drawn by the seed.

    At least one image of a class is in and at least one out; a class's only image is out.
    """
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(1, round(share * len(members))), len(members) - 1)
        chosen[numpy_generator(_HELD_OUT, seed, int(label)).permutation(members)[:count]] = True
    return chosen
