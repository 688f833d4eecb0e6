"""Optimizers, what is exempt from weight decay, and their state as named tensors."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from timm.optim import Lars
from torch import Tensor, nn

from maekit.config import OptimizerConfig
from maekit.engine.sharding import as_divided
from maekit.errors import StorageError

Named = Iterable[tuple[str, nn.Parameter]]

_NEVER_DECAYED = {"pos_embed", "pos_embed_win", "positions", "relative_position_bias_table", "logit_scale"}
_OF_POSITIONS = "cpb_mlp"  # Swin V2 computes its position biases by it
_BLOCKS = {"blocks", "layers"}


class Muon(torch.optim.Optimizer):
    """Muon for matrices, AdamW for all else, as one optimizer.

    Muon (Keller Jordan, 2024; in MAE arXiv 2605.24770) steps by the orthogonal matrix nearest to the momentum, here as
    large as AdamW's steps are (arXiv 2502.16982, section 2.2), whose rates and decay are its own then too.
    """

    def __init__(self, matrices: list[Any], others: list[Any], config: OptimizerConfig, lr: float) -> None:
        muon = torch.optim.Muon(matrices, lr=lr, momentum=config.muon_momentum, adjust_lr_fn="match_rms_adamw")
        adamw = torch.optim.AdamW(others, lr=lr, betas=config.betas, eps=config.eps, fused=True)
        super().__init__(muon.param_groups + adamw.param_groups, {})
        self.parts: tuple[torch.optim.Optimizer, ...] = muon, adamw
        muon.state = adamw.state = self.state

    def step(self) -> None:  # type: ignore[override]
        """One step of both."""
        for part in self.parts:
            part.step()


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies by itself: not to biases, norms, tokens and positions."""
    *parts, last = name.split(".")
    return (
        parameter.ndim > 1 and last not in _NEVER_DECAYED and not last.endswith("token") and _OF_POSITIONS not in parts
    )


def of_block(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is a matrix in a block of encoder or decoder, which is what Muon is for."""
    return parameter.ndim == 2 and decays(name, parameter) and not _BLOCKS.isdisjoint(name.split("."))


def build(
    config: OptimizerConfig, named: Named, lr: float, rate_factors: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """An optimizer over the named parameters that need gradients, in groups of one decay and one rate factor.

    rate_factors: what a parameter's learning rate is multiplied by (layer-wise decay); 1 for names not in it. Each
    group keeps its factor under `rate_factor` for the schedule. LARS scales the rate of matrices alone, as the paper's
    linear probe has it.
    """
    groups: dict[tuple[bool, bool, float], dict[str, Any]] = {}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        decayed, factor = decays(name, parameter), (rate_factors or {}).get(name, 1.0)
        by_muon = config.name == "muon" and of_block(name, parameter)
        settings = {"rate_factor": factor, "lr": lr * factor, "by_muon": by_muon}
        settings["weight_decay"] = config.weight_decay if decayed or config.decay_all else 0.0
        if config.name == "lars":
            settings["always_adapt"] = decayed
        group = groups.setdefault((decayed, by_muon, factor), {"params": [], "names": [], **settings})
        group["params"].append(parameter)
        group["names"].append(name)
    settled = list(groups.values())
    if config.name == "muon":
        matrices, others = ([group for group in settled if group["by_muon"] is its] for its in (True, False))
        return Muon(matrices, others, config, lr)
    if config.name == "adamw":
        return torch.optim.AdamW(settled, lr=lr, betas=config.betas, eps=config.eps, fused=True)
    if config.name == "lars":
        return Lars(settled, lr=lr, momentum=config.betas[0], trust_coeff=config.trust_coefficient)
    return torch.optim.SGD(settled, lr=lr, momentum=config.betas[0])


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give each group the rate of this step."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["rate_factor"]


@torch.no_grad()
def step_unless(spoilt: Tensor, optimizer: torch.optim.Optimizer, *, moments: bool = False) -> None:
    """A step; none where the bool `spoilt` is true, which is not waited for: weights and AdamW's moments stay.

    moments: whether those of other optimizers stay too, which takes a copy: where training goes on after such a step.
    """
    if isinstance(optimizer, Muon):
        for part in optimizer.parts:
            step_unless(spoilt, part, moments=moments)
    elif isinstance(optimizer, torch.optim.AdamW):
        optimizer.found_inf = spoilt.float()  # type: ignore[attr-defined]  # the fused kernel's own switch
        optimizer.step()
    else:
        before = {tensor: tensor.clone() for tensor in _changed(optimizer, moments)}
        optimizer.step()
        for tensor in _changed(optimizer, moments):  # a moment that is new began at zero
            tensor.copy_(torch.where(spoilt, before.get(tensor, 0), tensor))


def _changed(optimizer: torch.optim.Optimizer, moments: bool) -> list[Tensor]:
    """What a step changes: weights, and moments if they are asked for."""
    parameters: list[Tensor] = [parameter for _, parameter in _named(optimizer)]
    states = [optimizer.state.get(parameter, {}) for parameter in parameters] if moments else []
    return parameters + [value for state in states for value in state.values() if isinstance(value, Tensor)]


def state_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as NAME/KEY → tensor, NAME the parameter's."""
    tensors = {}
    for name, parameter in _named(optimizer):
        for key, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                tensors[f"{name}/{key}"] = torch.as_tensor(value)
    return tensors


def restore(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `state_tensors` gave. StorageError where a parameter has changed its shape or name."""
    parameters = dict(_named(optimizer))
    for full_name, value in tensors.items():
        name, _, key = full_name.rpartition("/")
        if name not in parameters:
            raise StorageError(f"optimizer state of {name}: no such parameter now")
        parameter = parameters[name]
        if value.ndim and value.shape != parameter.shape:
            raise StorageError(f"optimizer state of {name}: is {list(value.shape)}, not {list(parameter.shape)}")
        on_device = value.ndim > 0 or parameter.device.type == "cuda"
        value = as_divided(value, parameter) if value.ndim else value
        optimizer.state[parameter][key] = value.clone().to(parameter.device if on_device else "cpu")


def _named(optimizer: torch.optim.Optimizer) -> Iterable[tuple[str, nn.Parameter]]:
    for group in optimizer.param_groups:
        yield from zip(group["names"], group["params"], strict=True)
