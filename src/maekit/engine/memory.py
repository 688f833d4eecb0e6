"""Running out of memory, told so that a person knows what to change."""

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from maekit.config import RunConfig
from maekit.engine.schedule import Plan
from maekit.errors import TrainingError

# How torch says it where it has no class of its own for it: CPU, cuBLAS and MPS in turn.
_WORDS = ("can't allocate memory", "ALLOC_FAILED", "out of memory")


@contextmanager
def explained(plan: Plan, config: RunConfig, image_hw: tuple[int, int], device: torch.device) -> Iterator[None]:
    """Inside the block, memory that runs out becomes a TrainingError: what was asked for, the peak, what to try.

    Nothing is being written at such a moment but by a checkpoint, which is complete or absent.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        ran_out = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not ran_out and not any(words in str(error) for words in _WORDS):
            raise
        height, width = image_hw
        raise TrainingError(
            f"out of memory with {plan.micro_batch} images of {height}x{width} pixels a pass on {device}, "
            f"{peak(device)}; try {_settings(plan, config)}; the checkpoints are intact: "
            "go on with --resume --allow-drift"
        ) from error


def _settings(plan: Plan, config: RunConfig) -> str:
    """Two settings that take less memory, the cheaper one first."""
    tries = ["a smaller --image-size"]
    if not config.checkpoint_activations:
        tries.insert(0, "--run.checkpoint-activations")
    if plan.micro_batch > 1:
        smaller = max(d for d in range(1, plan.micro_batch) if plan.micro_batch % d == 0)
        tries.insert(0, f"--micro-batch-size {smaller}")
    if len(tries) == 1:
        tries.append("a narrower or shallower model")
    return " or ".join(tries[:2])


def peak(device: torch.device) -> str:
    """The most memory taken so far, as words: on a GPU of its tensors, else of this process."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        return f"whose tensors took {torch.cuda.max_memory_allocated(device) / 1e9:.1f} of {total / 1e9:.1f} GB"
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return f"this process having taken {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9:.1f} GB"


def free(device: torch.device) -> str:
    """Memory that nothing takes now, as words."""
    if device.type == "cuda":
        return f"{torch.cuda.mem_get_info(device)[0] / 1e9:.1f} GB free"
    with suppress(ValueError, OSError):  # where the system does not tell
        return f"{os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9:.1f} GB free"
    return "memory unknown"
