"""What a person sees of a run: a bar with rate and time left on a terminal, plain lines elsewhere."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, TypeVar

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from maekit.engine.schedule import Plan

T = TypeVar("T")
log = logging.getLogger("maekit")

_SECONDS_BETWEEN_LINES = 10.0
_WORTH_SHOWING = 0.05  # of the time, spent waiting for images
_TERMINAL = "maekit-terminal"
_console = Console(stderr=True)  # that bars and log lines share, so that neither tears the other


class Meter:
    """Shows how far a run is; this one, of other ranks, shows nothing."""

    def advance(self, step: int) -> None:
        """So many steps are done."""

    def show(self, record: dict[str, Any]) -> None:
        """A line of the history was written."""


class _Bar(Meter):
    def __init__(self, progress: Progress, steps: int, step: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=steps, completed=step, words="")

    def advance(self, step: int) -> None:
        self._progress.update(self._task, completed=step)

    def show(self, record: dict[str, Any]) -> None:
        self._progress.update(self._task, words=_words(record))


class _Lines(Meter):
    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._last = -_SECONDS_BETWEEN_LINES
        self._began: tuple[float, int] | None = None

    def advance(self, step: int) -> None:
        self._began = self._began or (time.monotonic(), step)

    def show(self, record: dict[str, Any]) -> None:
        now, step = time.monotonic(), record["step"]
        if now - self._last < _SECONDS_BETWEEN_LINES and step < self._steps:
            return
        self._last = now
        log.info("step %d/%d  %s  %s", step, self._steps, _words(record), self._left(now, step))

    def _left(self, now: float, step: int) -> str:
        if self._began is None or step <= self._began[1]:
            return ""
        return _left((now - self._began[0]) / (step - self._began[1]) * (self._steps - step))


def _words(record: dict[str, Any]) -> str:
    shown = [f"epoch {record['epoch']:.4g}", f"loss {record['loss']:.4f}", f"lr {record['lr']:.2e}"]
    if record.get("images_per_second") is not None:
        shown.append(f"{record['images_per_second']:.0f} images/s")
    if record.get("waiting", 0) >= _WORTH_SHOWING:
        shown.append(f"waiting {record['waiting']:.0%}")
    if record.get("mfu") is not None:
        shown.append(f"MFU {record['mfu']:.0%}")
    shown += [f"{name} {value:.4g}" for name, value in record.items() if name.startswith("val_") and value is not None]
    return "  ".join(shown)


@contextmanager
def meter(steps: int, step: int, *, visible: bool) -> Iterator[Meter]:
    """A meter for steps `step` to `steps`; a silent one where not visible (other ranks)."""
    if not visible:
        yield Meter()
    elif _shows_bars():
        with _progress() as progress:
            yield _Bar(progress, steps, step)
    else:
        yield _Lines(steps)


@contextmanager
def counter(total: int, things: str) -> Iterator[Callable[[int], None]]:
    """A count of things done once each, with rate and time left; call what it gives with how many are done so far."""
    began = time.monotonic()

    def rate(done: int) -> float:
        return done / max(time.monotonic() - began, 1e-9)

    if _shows_bars():
        with _progress(transient=True) as progress:
            task = progress.add_task("", total=total, words="")
            yield lambda done: progress.update(task, completed=done, words=f"{rate(done):.0f} {things}/s")
        return
    last = began

    def line(done: int) -> None:
        nonlocal last
        if done and time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            left = _left((total - done) / rate(done))
            log.info("%d/%d %s  %.0f %s/s  %s", done, total, things, rate(done), things, left)

    yield line


def with_count(lists: Iterable[list[T]], total: int) -> Iterator[list[T]]:
    """What was made of so many images, list by list, with such a count."""
    done = 0
    with counter(total, "images") as count:
        for several in lists:
            yield several
            done += len(several)
            count(done)


def _left(seconds: float) -> str:
    return f"{int(seconds // 3600)}:{int(seconds // 60 % 60):02d}:{int(seconds % 60):02d} left"


def duration(seconds: float) -> str:
    """A length of time as a person says it: 4.2 s, 12 min, 3 h 40 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def log_estimate(seconds: float, plan: Plan, step: int, memory: str) -> None:
    """How long the steps from `step` on will take, by the seconds of one forward and backward pass."""
    left = plan.steps - step
    passes = f"{left:,} steps" if plan.accumulation == 1 else f"{left:,} steps of {plan.accumulation} passes"
    whole = duration(seconds * left * plan.accumulation)
    log.info("about %s for %s, by one pass of %.2g s; %s", whole, passes, seconds, memory)


def _progress(*, transient: bool = False) -> Progress:
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[words]}")
    return Progress(*columns, console=_console, refresh_per_second=4, transient=transient)


def _shows_bars() -> bool:
    """On a terminal, and in a notebook that has what rich draws its bars with."""
    return sys.stderr.isatty() or (_console.is_jupyter and find_spec("ipywidgets") is not None)


@contextmanager
def log_to_terminal() -> Iterator[None]:
    """Inside the block the `maekit` logger's lines go to standard error: rich on a terminal, plain elsewhere.

    Not where the program has handlers of its own, which get them as ever, nor from any process but the first.
    """
    level, handler = log.level, _handler()
    if not log.hasHandlers() and os.environ.get("RANK", "0") == "0":
        log.addHandler(handler)
    log.setLevel(level or logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


def _handler() -> logging.Handler:
    handler: logging.Handler = logging.StreamHandler()
    if sys.stderr.isatty():
        handler = RichHandler(console=_console, show_time=False, show_path=False, show_level=False, markup=False)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.set_name(_TERMINAL)
    return handler


@contextmanager
def quiet() -> Iterator[None]:
    """Inside the block the terminal shows warnings alone; log files go on as before."""
    terminal = [handler for handler in log.handlers if handler.get_name() == _TERMINAL]
    for handler in terminal:
        handler.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for handler in terminal:
            handler.setLevel(logging.NOTSET)
