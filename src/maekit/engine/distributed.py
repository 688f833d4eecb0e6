"""Processes that train together, as torchrun starts them. One process without torchrun is a world of one."""

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from maekit.errors import RunError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    hosts: dist.ProcessGroup | None = None
    """A group over CPU tensors beside the device's own; None where the main group is that already."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run folder and prints."""
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """Mean over the processes, in float64 so that the number of processes leaves no trace in float32."""
        total = self.sum(value.detach().double())
        return total / self.size

    def sum(self, value: Tensor) -> Tensor:
        """Sum over the processes; a tensor of its own."""
        total = value.detach().clone()
        if self.size > 1:
            dist.all_reduce(total)
        return total

    def agree(self, flag: bool) -> bool:
        """Whether any process says yes. All must ask; the device is not waited for."""
        if self.size == 1:
            return flag
        votes = torch.tensor(int(flag))
        dist.all_reduce(votes, group=self.hosts)
        return bool(votes > 0)

    def tell(self, value: T) -> T:
        """The first process's value, known to all."""
        if self.size == 1:
            return value
        told = [value]
        dist.broadcast_object_list(told, src=0, group=self.hosts)
        return told[0]

    def gather(self, values: list[T]) -> list[T]:
        """The processes' lists, one after the other, in all of them."""
        if self.size == 1:
            return values
        lists: list[list[T]] = [[] for _ in range(self.size)]
        dist.all_gather_object(lists, values, group=self.hosts)
        return [value for part in lists for value in part]

    def gather_rows(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """Each tensor with all processes' rows, one process after the other; numbers of rows may differ."""
        if self.size == 1:
            return parts
        shares: list[tuple[Tensor, ...]] = [() for _ in range(self.size)]
        dist.all_gather_object(shares, parts, group=self.hosts)
        return tuple(torch.cat(column) for column in zip(*shares, strict=True))

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def join(device: str, timeout: float) -> Iterator[World]:
    """Join the world that torchrun describes in the environment; leave it at the end.

    device: auto, cpu, cuda, cuda:N, mps. timeout: seconds until a process that waits for others gives up.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = choose_device(device, local_rank if size > 1 else None)
    if size == 1:
        yield World(device=chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    patience = datetime.timedelta(seconds=timeout)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=patience)
    hosts: Any = dist.new_group(backend="gloo", timeout=patience) if chosen.type == "cuda" else None
    try:
        yield World(rank=dist.get_rank(), size=size, local_rank=local_rank, device=chosen, hosts=hosts)
    finally:
        dist.destroy_process_group()


def choose_device(name: str, local_rank: int | None = None) -> torch.device:
    """The device a name means. RunError where it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RunError(f"device {name}: is no device; take auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise RunError(f"device {name}: no CUDA device is usable here; take --device cpu")
        if local_rank is not None and device.index is None:
            device = torch.device("cuda", local_rank)
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise RunError(f"device {name}: there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise RunError(f"device {name}: no MPS device is usable here; take --device cpu")
    elif device.type not in ("cpu", "mps"):
        raise RunError(f"device {name}: is no device maekit runs on; take auto, cpu, cuda, cuda:N or mps")
    return device
