"""What a step of training takes of a device's memory, counted by taking it on tensors that have shapes and no data.

torch's fake tensors go through the same kernels' shapes, and the same autograd, as real ones, so what lives at each
moment is what would. Not counted: what a GPU's driver, NCCL and the allocator's gaps take beside.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from maekit.config import OptimizerConfig, RunConfig
from maekit.engine import optimizer as optimizers
from maekit.engine.compiled import Step, units
from maekit.engine.ema import Ema
from maekit.engine.precision import Precision
from maekit.engine.task import Task

_CPU = torch.device("cpu")  # whose kernels keep for the backward pass what a GPU's keep
_AT_A_TIME = 3  # blocks that FSDP holds: one at work, the next one, and the buffer in which that one arrived


@dataclass(frozen=True)
class Footprint:
    """Bytes that one process holds at the peak of a step."""

    weights: int
    """Of the model, and of their running average where one is kept."""
    gradients: int
    moments: int
    """The optimizer's state."""
    activations: int
    """All that the peak holds beside: what the backward pass needs, copies in less precision, what a kernel makes."""
    gathered: int = 0
    """fsdp: weights of whole blocks, and gradients on their way."""

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments + self.activations + self.gathered


def whole(make: Callable[[], Task], batch: Any, *, optimizer: OptimizerConfig, run: RunConfig, held: bool) -> Footprint:
    """Of a process that has all weights.

    make: the task over a model on the meta device. batch: real images of one pass. run: its precision, which is not
    auto, and its average count. held: whether gradients stay from pass to pass, as DDP and
    accumulation keep them; else they come while activations go.
    """
    task = make()
    prepared, precision = task.prepare(batch), Precision(run.precision, _CPU)
    with without_data() as live:
        model = task.model.train().to_empty(device=_CPU)
        average = Ema(model, run.ema, part=task.averaged) if run.ema else None
        weights = live.now
        built = optimizers.build(optimizer, model.named_parameters(), 0.0, task.rate_factors())
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in trained:
            parameter.grad = torch.empty_like(parameter)
        gradients = live.now - weights
        optimizers.step_unless(torch.zeros((), dtype=torch.bool), built)  # whose first step makes the moments
        moments = live.now - weights - gradients
        if not held:
            built.zero_grad(set_to_none=True)
        live.peak = live.now
        _pass(task, prepared, precision)
        norm = nn.utils.get_total_norm([parameter.grad for parameter in trained if parameter.grad is not None])
        if optimizer.clip is not None:
            nn.utils.clip_grads_with_norm_(trained, optimizer.clip, norm)
        optimizers.step_unless(torch.zeros((), dtype=torch.bool), built)
        del average
        return Footprint(weights, gradients, moments, live.peak - weights - gradients - moments)


def divided(
    make: Callable[[], Task], batch: Any, *, optimizer: OptimizerConfig, run: RunConfig, processes: int, held: bool
) -> Footprint:
    """Of the first of so many processes that divide the weights by FSDP2; the others have no more.

    Arguments as of `whole`. Each parameter is divided along its first dimension, and those that are no multiple of the
    processes are filled up.
    """
    task = make()
    prepared, precision = task.prepare(batch), Precision(run.precision, _CPU)
    sent = precision.dtype or torch.float32
    with without_data() as live:
        model = task.model.train().to_empty(device=_CPU)
        step = Step(task)
        trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        share = sum(_share(parameter, processes) for _, parameter in trained)
        weights = sum(_share(tensor, processes) for tensor in model.parameters())
        weights += sum(buffer.nbytes for buffer in model.buffers())
        if run.ema:
            weights += sum(_share(p, processes) for name, p in trained if name.startswith(task.averaged))
        moments = share * (2 if optimizer.name == "adamw" else 1)
        gathered = _gathered(step, sent, all_blocks=not run.reshard_after_forward)
        parts: list[Tensor] = []

        def keep_part(parameter: Tensor) -> None:
            """Of a gradient, which goes to those who keep the others."""
            parameter.grad = None
            if not held:
                parts.append(torch.empty(_share(parameter, processes) // parameter.element_size()))

        for parameter in model.parameters():
            parameter.data = parameter.data.to(sent)
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(keep_part)
        before = live.peak = live.now
        _pass(task, prepared, precision)
        return Footprint(weights, share, moments, live.peak - before - (0 if held else share), gathered)


@contextmanager
def without_data() -> Iterator["Live"]:
    """Inside the block tensors have shapes alone, and what lives of them is counted."""
    # Autograd starts its threads for devices once, at the first backward pass; for the GPU that fake tensors pretend to
    # be there, of which forked processes would then complain.
    torch.zeros((), requires_grad=True).backward()
    with FakeTensorMode(allow_non_fake_inputs=True), Live() as live:
        yield live


def _pass(task: Task, prepared: Any, precision: Precision) -> None:
    with precision.autocast():
        loss = task.loss(prepared)["loss"]
    loss.backward()


def _share(tensor: Tensor, processes: int) -> int:
    """Bytes of the first process's part."""
    rows = tensor.shape[0] if tensor.ndim else 1
    return -(-rows // processes) * prod(tensor.shape[1:]) * tensor.element_size()


def _gathered(step: nn.Module, sent: torch.dtype, *, all_blocks: bool) -> int:
    """Bytes of whole weights, and of gradients that are not yet divided, at the most: as if they met the other peak."""
    blocks = [_elements(block.parameters()) for block in units(step)]
    largest, rest = max(blocks, default=0), _elements(step.parameters()) - sum(blocks)
    at_once = sum(blocks) + 2 * largest if all_blocks else min(sum(blocks), _AT_A_TIME * largest)
    gradients = largest * (sent.itemsize + 2 * torch.float32.itemsize)  # as made, and as summed, of two blocks
    return (rest + at_once) * sent.itemsize + gradients


def _elements(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


class Live(TorchDispatchMode):
    """Bytes of the storages that operations under it made and that something still holds: `now`, and at the `peak`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._held: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._take(tensor.untyped_storage())
        return made

    def _take(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._held and self._held[key]() is storage:
            return

        def gone(ref: Any) -> None:
            self.now -= size
            if self._held.get(key) is ref:
                del self._held[key]

        self._held[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)
