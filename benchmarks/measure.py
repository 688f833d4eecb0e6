"""Timing steps in turn, and their peak memory."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median, quantiles

import torch

Step = Callable[[], None]


def alternate(steps: Mapping[str, Step], *, rounds: int, per_round: int, device: str) -> dict[str, list[float]]:
    """Seconds of `per_round` steps, `rounds` times for each, in turn, so that a slow minute hits all alike."""
    for step in steps.values():  # warm up: allocation, autotuning, compilation
        step()
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            wait(device)
            began = time.perf_counter()
            for _ in range(per_round):
                step()
            wait(device)
            seconds[name].append(time.perf_counter() - began)
    return seconds


def rate(images: int, seconds: list[float]) -> str:
    """Images per second: the median, and the quartiles, to three digits."""
    low, _, high = quantiles(seconds, n=4)
    return f"{_digits(images / median(seconds))} ({_digits(images / high)} to {_digits(images / low)})"


def _digits(value: float) -> str:
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def matrix_products(device: str, precision: str) -> tuple[dict[str, Step], float]:
    """Square matrix products to time beside the steps, by name, and the FLOP of one.

    The right matrix is as it lies, or transposed, as a linear layer's is: without bf16 instructions torch's product on
    a CPU is many times faster so. The floor is the faster.
    """
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    size = 8192 if device.startswith("cuda") else 1024
    left, right = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))

    def plain() -> None:
        left @ right

    def transposed() -> None:
        left @ right.T

    return {"product": plain, "transposed product": transposed}, 2.0 * size**3


def peak_megabytes(make: Callable[[], Step], device: str) -> float:
    """Peak memory of three steps in MB, with weights and optimizer: the device's, or this process's beyond what it had.

    Only right in a process that has done nothing else before.
    """
    if device.startswith("cuda"):
        step = make()
        for _ in range(3):
            step()
        return torch.cuda.max_memory_allocated() / 1e6
    before = _resident("VmRSS")
    step = make()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    for _ in range(3):
        step()
    return (_resident("VmHWM") - before) / 1e3


def _resident(name: str) -> int:
    """VmRSS (now) or VmHWM (at its peak) of this process, in kB; Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name)))
