"""Processes that train together, as torchrun starts them. One process without torchrun is a world of one."""

import datetime
import inspect
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from maekit.engine.peers import Peers
from maekit.errors import MaekitError, OthersError, RunError, Stopped

T = TypeVar("T")

# What gloo and NCCL say of a process that waits for one that is gone.
_OTHERS_GONE = ("Connection closed by peer", "Connection reset by peer", "remote process exited", "Timed out waiting")
_JOINING = datetime.timedelta(minutes=10)  # for all to come, whatever the hang timeout
_LAST_WORDS = 10.0  # seconds from torchrun's wish that a process end to that end; it waits for thirty
_BEAT = 0.5  # seconds between two signs of life of a process at work; well below any sensible hang timeout


@dataclass(frozen=True)
class World:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    hosts: dist.ProcessGroup | None = None
    """A group over CPU tensors beside the device's own; None where the main group is that already."""
    timeout: datetime.timedelta = datetime.timedelta(minutes=10)
    """How long a process waits for the others."""
    launchers: frozenset[str] = frozenset()
    """The torchruns, one a machine, whose processes these are."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run folder and prints."""
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """Mean over the processes, in float64 so that the number of processes leaves no trace in float32."""
        return self.sum(value.detach().double()) / self.size

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
        """Each tensor with all processes' rows, one process after the other; numbers of rows may differ.

        A process without rows need not know how wide they are: whatever it has is left out.
        """
        if self.size == 1:
            return parts
        shares: list[tuple[Tensor, ...]] = [() for _ in range(self.size)]
        dist.all_gather_object(shares, parts, group=self.hosts)
        columns = ([part for part in column if len(part)] or column[:1] for column in zip(*shares, strict=True))
        return tuple(torch.cat(list(column)) for column in columns)

    def patiently(self, work: Callable[[], T]) -> T:
        """The work's result in each process, once all have done theirs, however long one of them takes.

        A collective would wait no longer than the hang timeout. Here a process at work gives a sign of life twice a
        second, so that only one that died, or stands still as a whole, ends the job. An error is raised where it
        happened; the others then raise OthersError.
        """
        if self.size == 1:
            return work()
        result: Future[T] = Future()
        thread = threading.Thread(target=settle, args=(result, work), daemon=True)  # one that hangs holds up no exit
        thread.start()
        finished = 0
        while finished < self.size:
            thread.join(_BEAT)
            failed = result.done() and result.exception() is not None
            states = torch.tensor([int(result.done()), int(failed)])
            dist.all_reduce(states, group=self.hosts)
            finished = int(states[0])
            if states[1] and not failed:
                raise OthersError("another process of this job failed; its own line says why", told=True)
            if failed:
                break
        return result.result()

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()


def settle(result: Future[T], work: Callable[[], T]) -> None:
    """Give the result of the work, or its error, to those who wait for it."""
    try:
        result.set_result(work())
    except BaseException as error:
        result.set_exception(error)


def parallel(module: nn.Module) -> DistributedDataParallel:
    """The module with gradients that are averaged over the processes; buffers stay each process's own.

    torch 2.13 renamed the switch of the buffers, and warns of the old name in every run.
    """
    # of tokens of size [1, 1, D], whose first two strides mean nothing
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    switch = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    settings: dict[str, Any] = {"gradient_as_bucket_view": True, switch: False}
    return DistributedDataParallel(module, **settings)


@contextmanager
def join(device: str, timeout: float = 600.0, patience: float | None = None) -> Iterator[World]:
    """Join the world that torchrun describes in the environment; leave it at the end.

    device: auto, cpu, cuda, cuda:N, mps. timeout: seconds after which one that gives no sign of life is lost.
    patience: seconds until a process that waits for others gives up; None: as many.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = choose_device(device, local_rank if size > 1 else None)
    if size == 1:
        yield World(device=chosen, launchers=frozenset(_launcher()))
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    wait = datetime.timedelta(seconds=timeout if patience is None else patience)
    store, rank, size = next(rendezvous("env://", timeout=_JOINING))
    # torchrun's own store outlives its processes: what those before a restart left in it is not for these.
    store = PrefixStore(f"maekit/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{size}", store)
    # Connections are made once all are here: imports may take a busy machine longer than a process waits for others.
    store.set(f"here/{rank}", " ".join(_launcher()))
    here = [f"here/{other}" for other in range(size)]
    store.wait(here, _JOINING)
    launchers = frozenset(bytes(store.get(other)).decode() for other in here) - {""}
    on_gpu, own = chosen.type == "cuda", PrefixStore("groups", store)
    dist.init_process_group("nccl" if on_gpu else "gloo", store=own, rank=rank, world_size=size, timeout=wait)
    hosts: Any = dist.new_group(backend="gloo", timeout=wait) if on_gpu else None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _end_soon)
    peers = Peers(store, rank, size, timeout)
    ended_by: Exception | None = None
    try:
        yield World(rank, size, local_rank, chosen, hosts, wait, launchers)
    except (Stopped, OthersError):
        raise
    except MaekitError as error:
        ended_by, error.told = error, not peers.first_to_say(str(error))
        raise
    except Exception as error:
        if not any(words in str(error) for words in _OTHERS_GONE):
            ended_by = error
            raise
        reason, told = peers.reason()
        raise OthersError(reason, told=told or not peers.first_to_say(reason)) from error
    finally:
        peers.leave(ended_by)
        dist.destroy_process_group()


def _launcher() -> list[str]:
    """The torchrun that started this process, in words that no other will ever have; nothing without one."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return []
    parent, began = os.getppid(), ""
    with suppress(OSError):
        began = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
    return [f"{socket.gethostname()}:{parent}:{began}"]


def _end_soon(number: int, _: FrameType | None) -> None:
    """torchrun asks all to end as soon as one has: those that save, or say what happened, are given the time."""
    ending = threading.Timer(_LAST_WORDS, os._exit, (128 + number,))
    ending.daemon = True
    ending.start()


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
