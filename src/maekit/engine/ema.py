"""A running average of the weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Exponential moving average of a model's parameters, updated once a step; buffers are the model's own.

    The decay grows from zero with min(decay, (1 + step) / (10 + step)), so that a short run is not its initial weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._model = model
        self._weights = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step number `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        parameters = dict(self._model.named_parameters())
        torch._foreach_lerp_(list(self._weights.values()), [parameters[name] for name in self._weights], 1 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        """The model's state dict with averaged weights in place of its own."""
        return {**self._model.state_dict(), **self._weights}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` gave."""
        for name, weight in self._weights.items():
            weight.copy_(tensors[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block the model has the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        parameters = dict(self._model.named_parameters())
        for name, weight in self._weights.items():
            kept = weight.clone()
            weight.copy_(parameters[name])
            parameters[name].copy_(kept)
