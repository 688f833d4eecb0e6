"""A running average of the weights."""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from maekit.engine.sharding import as_divided

log = logging.getLogger("maekit")

_RUN_OVER_WINDOW = 6  # the least for which the longest published setting, 0.9999 over 62,500 steps, stays as it is
_LEAST_WINDOW = 5.0


def fitting_decay(decay: float, steps: int) -> float:
    """The decay, or a faster one where the run is too short for it.

    An average remembers about 1 / (1 - decay) steps. A sixth of the run at most: then what was before the middle of the
    run weighs e^-3, 5%, at its end. Below 30 steps it remembers five.
    """
    longest = max(_LEAST_WINDOW, steps / _RUN_OVER_WINDOW)
    return min(decay, 1 - 1 / longest)


class Ema:
    """Exponential moving average of a model's parameters, updated once a step; buffers are the model's own.

    The weights after step t (from 0) enter with (1 - decay) / (1 - decay^(t + 1)): the average is that of the weights
    so far, each `decay` times the next, divided by the sum of these factors, as Adam's moments are (arXiv 1412.6980,
    section 3). The initial weights leave with the first step; this start is over, to 5%, after 3 / (1 - decay) steps.
    """

    def __init__(self, model: nn.Module, decay: float, steps: int | None = None, part: str = "") -> None:
        """steps: of the whole run, for which the decay is made to fit, and a line said where it was not; None: any.
        part: what names begin with of that which is averaged, and given back."""
        self.decay = decay if steps is None else fitting_decay(decay, steps)
        if self.decay < decay:
            log.info(
                "ema: a decay of %g remembers %.0f steps, too many for a run of %d: %.4g is used, which remembers %.0f",
                decay, 1 / (1 - decay), steps, self.decay, 1 / (1 - self.decay),
            )  # fmt: skip
        self._model = model
        self._part, named = part, model.named_parameters()
        self._weights = {n: p.detach().clone() for n, p in named if p.requires_grad and n.startswith(part)}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step number `step`, counted from 0."""
        share = (1 - self.decay) / -math.expm1((step + 1) * math.log(self.decay))
        parameters = dict(self._model.named_parameters())
        torch._foreach_lerp_(list(self._weights.values()), [parameters[name] for name in self._weights], share)

    def state_dict(self) -> dict[str, Tensor]:
        """The state dict of the model, or of its part, with averaged weights in place of its own."""
        whole = {**self._model.state_dict(), **self._weights}
        return {name: tensor for name, tensor in whole.items() if name.startswith(self._part)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` gave."""
        for name, weight in self._weights.items():
            weight.copy_(as_divided(tensors[name], weight))

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
