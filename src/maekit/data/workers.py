"""Processes that decode while the model learns: results in order, whatever their number."""

import atexit
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Semaphore
from typing import Any, Generic, NoReturn, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from maekit.errors import DataError

MOST_WORKERS = 16
T = TypeVar("T")
U = TypeVar("U")


def worker_count(wanted: int | None) -> int:
    """Processes per device; None: one less than this device's share of the cores, at most 16."""
    if wanted is not None:
        return wanted
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun
    return max(0, min(MOST_WORKERS, cores // devices - 1))


def map_in_order(work: Callable[[T], U], items: Iterable[T], workers: int) -> Iterator[U]:
    """`map(work, items)` in that many processes, or in this one for 0.

    The work has to be picklable, and to hand back what goes wrong rather than raise it, DataError excepted. Closing the
    iterator ends the processes, and so does the end of this one, of whatever kind. Raises DataError where one of them
    dies.
    """
    if workers == 0:
        yield from map(work, items)
        return
    try:
        stop = multiprocessing.Semaphore(0)  # no Event: one that a worker died waiting for would block who sets it
        loader: DataLoader[Any] = DataLoader(
            _Items(work),
            batch_size=None,
            sampler=items,
            num_workers=workers,
            collate_fn=_unchanged,
            worker_init_fn=partial(_start, stop),
            pin_memory=torch.cuda.is_initialized(),
            generator=torch.Generator().manual_seed(0),  # else the loader draws from the global one
        )
        iterator = _iterate(loader)
    except OSError as error:
        raise DataError(
            f"processes that decode images cannot be started ({error.strerror}); try fewer --workers, or 0"
        ) from None

    def end_workers() -> None:
        for _ in range(workers):
            stop.release()

    atexit.register(end_workers)
    try:
        for result in iterator:
            if isinstance(result, DataError):
                raise result
            yield result
    except RuntimeError as error:
        if "exited unexpectedly" not in str(error):
            raise
        raise DataError(
            "a process that decodes images died: killed, or out of memory or of shared memory (/dev/shm); "
            "try fewer --workers, or 0"
        ) from None
    finally:
        del iterator  # ends the workers now, whoever still holds this frame
        end_workers()  # also where an error holds the iterator: they are deaf to the signal it would send at exit
        atexit.unregister(end_workers)


def _iterate(loader: DataLoader[Any]) -> Iterator[Any]:
    """iter(loader), without torch's SIGCHLD handler.

    It would raise a worker's death in the middle of whatever runs at that moment; asking for the next result finds it
    too, where it can be handled.
    """
    if threading.current_thread() is not threading.main_thread():
        return iter(loader)
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        return iter(loader)
    finally:
        signal.signal(signal.SIGCHLD, handler)


class _Items(Dataset[Any], Generic[T, U]):
    """Hands the loader's "index", which may be anything, to the work."""

    def __init__(self, work: Callable[[T], U]) -> None:
        self._work = work

    def __getitem__(self, item: T) -> U | DataError:
        try:
            return self._work(item)
        except DataError as error:  # torch would raise it with a traceback for a message
            return error


def _unchanged(result: T) -> T:
    return result


def _start(stop: Semaphore, _: int) -> None:
    """What a worker does first."""
    # A signal to the whole job is the parent's to judge: it may want to finish the step and save.
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    # What a worker's queue cannot send, for want of shared memory, would be waited for without end.
    Queue._on_queue_feeder_error = _end  # type: ignore[attr-defined]
    threading.Thread(target=_end_with_parent, args=(stop,), daemon=True).start()


def _end_with_parent(stop: Semaphore) -> None:
    above = os.getppid()
    parent = multiprocessing.parent_process()
    while os.getppid() == above and parent is not None and parent.is_alive():
        if stop.acquire(timeout=1):
            break
    _end()


def _end(*_: object) -> NoReturn:
    os._exit(1)
