"""What a pass costs, counted by torch rather than by hand."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from maekit.models.encoder import ImageEncoder
from maekit.models.mae import MaskedAutoencoder


def parameter_count(module: nn.Module) -> int:
    """Number of parameters, frozen ones included."""
    return sum(parameter.numel() for parameter in module.parameters())


def forward_gflop(model: ImageEncoder) -> float:
    """GFLOP (a multiplication and an addition are two) of one image's forward pass, as in training.

    Counted on the meta device: nothing is computed or allocated. The backward pass costs twice as much again.
    """
    images = torch.empty(1, model.config.channels, *model.config.image_hw, device="meta")
    if not isinstance(model, MaskedAutoencoder):
        return _count(model, images)
    keys = torch.zeros(1, dtype=torch.int64, device="meta")
    masked = torch.zeros(1, model.grid[0] * model.grid[1], dtype=torch.bool, device="meta")
    return _count(model, images, masked, hidden=model.objective.mask.hidden, keys=keys)


def features_gflop(model: ImageEncoder) -> float:
    """GFLOP of the features of one whole image, counted likewise."""
    return _count(_Features(model), torch.empty(1, model.config.channels, *model.config.image_hw, device="meta"))


class _Features(nn.Module):
    """Features as a module's forward pass, which is what can be counted."""

    def __init__(self, model: ImageEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.features(images)


def _count(model: nn.Module, *inputs: Tensor, **named: Any) -> float:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    call: Callable[..., Any] = torch.func.functional_call
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call(model, shapes, inputs, named)
    return counter.get_total_flops() / 1e9
