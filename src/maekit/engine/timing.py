"""Where a run's time goes: images a second, waiting for them, the share of what the device could do, a trace."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

T = TypeVar("T")
log = logging.getLogger("maekit")

LONG_WAIT = 0.2  # of the time: waiting for images that is worth a word
_MATRIX = {"cpu": 512, "cuda": 8192}
_MEASURED = 0.05  # seconds, of which the best product counts
_ENOUGH = 5.0  # seconds of training, to judge by how much of it is waiting
_DEAREST = 10
_BEFORE = 3  # steps that a trace leaves out: allocators and caches fill
TRACE = "trace.json.gz"


class Timing:
    """Counts from one line of the history to the next."""

    def __init__(self, device: torch.device, dtype: torch.dtype | None, gflop: float | None, advice: str = "") -> None:
        """dtype: of products; None: float32. gflop: an image's in training; None: MFU is not told. advice: what to do
        where images are waited for."""
        self._gflop, self._advice = gflop, advice
        self._measure = partial(matrix_rate, device, dtype)
        self._peak = self._measure() if gflop else None
        self.waited = 0.0  # seconds, in all
        self._judged = 0.0, 0.0  # seconds, and those of them spent waiting, of all lines but the first
        self._intervals = 0
        self.restart(0)

    def waiting(self, stream: Iterator[T]) -> Iterator[T]:
        """The same; how long each takes to come is counted."""
        while True:
            began = time.perf_counter()
            try:
                item = next(stream)
            except StopIteration:
                return
            finally:
                self.waited += time.perf_counter() - began
            yield item

    def restart(self, step: int) -> None:
        """Count anew."""
        self._began, self._step, self._waited = time.perf_counter(), step, self.waited

    def record(self, done: int, batch_size: int, processes: int) -> dict[str, float]:
        """images_per_second of all processes; waiting, the share of the time; mfu, the share of the matrix rate."""
        seconds = time.perf_counter() - self._began
        rate = (done - self._step) * batch_size / seconds
        waited = min(seconds, self.waited - self._waited)
        said = {"images_per_second": round(rate, 2), "waiting": round(waited / seconds, 4)}
        if self._gflop and self._peak:
            used = rate / processes * self._gflop
            if used > self._peak:  # others kept the device busy when it was measured, or still do
                self._peak = max(used, self._measure() or 0.0)
            said["mfu"] = round(used / self._peak, 4)
        self._intervals += 1
        if self._intervals > 1:  # the first has the start of workers in it
            self._judged = self._judged[0] + seconds, self._judged[1] + waited
            seconds, waited = self._judged
            if self._advice and seconds >= _ENOUGH and waited > LONG_WAIT * seconds:  # for too long to be an accident
                log.warning("waiting for images %.0f%% of the time: %s", 100 * waited / seconds, self._advice)
                self._advice = ""
        return said


def matrix_rate(device: torch.device, dtype: torch.dtype | None) -> float | None:
    """GFLOP a second of a product of two large square matrices, the best of some; None for devices not known."""
    side = _MATRIX.get(device.type)
    if side is None:
        return None
    own = torch.Generator(device).manual_seed(0)  # the run's draws go on as if nothing had been measured
    left = torch.rand(side, side, device=device, generator=own).to(dtype or torch.float32)
    rates, end = [0.0], time.perf_counter() + _MEASURED
    while len(rates) < 4 or time.perf_counter() < end:
        began = time.perf_counter()
        left @ left
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        rates.append(2e-9 * side**3 / (time.perf_counter() - began))
    return max(rates)


@contextmanager
def traced(steps: int | None, path: Path | None, timing: Timing) -> Iterator[Callable[[], None]]:
    """What to call after each step for a trace of so many; nothing is traced where steps or path are None."""
    if steps is None or path is None:
        yield lambda: None
        return
    trace = _Trace(steps, path, timing)
    try:
        yield trace.step
    finally:
        trace.close()


class _Trace:
    """A trace of some steps, begun when a few are done, for Perfetto (ui.perfetto.dev) or chrome://tracing.

    At its end the dearest operations are told, by the time that the device, or the processor, spent in each.
    """

    def __init__(self, steps: int, path: Path, timing: Timing) -> None:
        self._steps, self._path, self._timing = steps, path, timing
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else torch's library reports on itself to standard error
        self._done = 0
        self._profile: Any = None
        self._began = (0.0, 0.0)

    def step(self) -> None:
        """A step is done."""
        self._done += 1
        if self._done == _BEFORE:
            devices = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self._profile = profile(activities=[ProfilerActivity.CPU, *devices], acc_events=True)
            self._profile.start()
            self._began = time.perf_counter(), self._timing.waited
        elif self._done == _BEFORE + self._steps:
            self.close()

    def close(self) -> None:
        """End it, where it goes on."""
        if self._profile is None:
            if self._done < _BEFORE:
                log.warning("no trace: the run ended before step %d, from which on there would have been one", _BEFORE)
            return
        seconds, waited = time.perf_counter() - self._began[0], self._timing.waited - self._began[1]
        self._profile.stop()
        self._profile.export_chrome_trace(str(self._path))
        steps, events = self._done - _BEFORE, self._profile.key_averages()
        self._profile = None
        log.info("%d steps in %.3g s, %.0f%% of it waiting for images: %s", steps, seconds, 100 * waited / seconds,
                 self._path)  # fmt: skip
        where = "device" if any(event.self_device_time_total for event in events) else "cpu"
        name = f"self_{where}_time_total"
        total = sum(getattr(event, name) for event in events) or 1
        for event in sorted(events, key=lambda event: getattr(event, name), reverse=True)[:_DEAREST]:
            share = getattr(event, name) / total
            log.info("  %4.1f%%  %6d calls  %s", 100 * share, event.count, event.key)
