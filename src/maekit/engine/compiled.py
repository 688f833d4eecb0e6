"""A step of training as a module, compiled or not, and what a person is told where compiling does not work."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from maekit.config import RunConfig
from maekit.engine.task import Task
from maekit.errors import RunError

log = logging.getLogger("maekit")

_COMPILER = ("torch._dynamo", "torch._inductor", "torch._functorch", "torch.fx", "triton")


class Step(nn.Module):
    """A task's loss as a module's forward, which is where DDP and compile take hold."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = task.model
        self._loss = task.loss

    def forward(self, prepared: Any) -> dict[str, Tensor]:
        return self._loss(prepared)


def units(model: nn.Module) -> list[nn.Module]:
    """The blocks of a model: what FSDP shards, and brings together, one at a time."""
    return [module for name, module in model.named_modules() if name.split(".")[-2:-1] == ["blocks"]]


def step_of(task: Task, config: RunConfig) -> nn.Module:
    """The module whose forward is the task's loss; compiled at its first call where the config asks for it.

    Raises RunError where this torch compiles nothing on this system.
    """
    step = Step(task)
    if not config.compile:
        return step
    each = units(step) if config.parallel == "fsdp" else []
    # Shapes of a run are few, and code for one size is faster to make and to run. Dropout draws as it does uncompiled,
    # so that compiling does not change what is learned.
    how: dict[str, Any] = {"dynamic": False, "options": {"fallback_random": True}}
    with explained(config):
        try:
            for unit in each:  # whose weights FSDP brings before each, outside of what is compiled
                unit.forward = torch.compile(unit.forward, **how)
            if not each:
                step.compile(**how)
        except RuntimeError as error:  # too new a Python, or a system without support
            raise _refused(error) from error
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns of GPUs that nobody asked for
    log.info("compiling: the first step takes longer, from seconds to minutes")
    return step


@contextlib.contextmanager
def explained(config: RunConfig) -> Iterator[None]:
    """Inside the block, what a compiler could not do becomes a RunError of one line."""
    if not config.compile:
        yield
        return
    try:
        # Under DDP, dynamo cuts the graph at the buckets of gradients; it cannot where activations are recomputed.
        with torch._dynamo.config.patch(optimize_ddp=not config.checkpoint_activations):
            yield
    except Exception as error:
        if "out of memory" in str(error) or not _of_the_compiler(error):
            raise
        raise _refused(error) from error


def _of_the_compiler(error: Exception) -> bool:
    """Whether compiling failed, not what was compiled."""
    if isinstance(error, torch._dynamo.exc.TorchDynamoException):
        return True
    trace, module = error.__traceback__, ""
    while trace is not None:
        module, trace = trace.tb_frame.f_globals.get("__name__", ""), trace.tb_next
    return module.startswith(_COMPILER)


def _refused(error: Exception) -> RunError:
    cause = getattr(error, "inner_exception", error)
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    reason = f"{type(cause).__name__}: {lines[0][:200]}" if lines else type(cause).__name__
    return RunError(
        f"--compile: torch {torch.__version__} cannot compile this run here ({reason}); leave --compile out"
    )
