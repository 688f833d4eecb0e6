"""`maekit WORDS...` in a forked process, which starts in milliseconds: this one has imported everything already."""

import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from maekit import cli

_PATIENCE = 60.0
_ALL = (
    "maekit.recipes.pretrain", "maekit.recipes.classify", "tensorboard.summary.writer.record_writer",
    "matplotlib.figure", "matplotlib.backends.backend_agg", "torchvision.transforms.v2",
)  # fmt: skip


def import_everything() -> None:
    """What a run imports, without starting a thread: a fork takes only the thread that forks along."""
    for name in _ALL:
        importlib.import_module(name)
    threads = [(thread / "comm").read_text().strip() for thread in Path("/proc/self/task").iterdir()]
    others = set(threads) - {"python", "jemalloc_bg_thd"}  # the allocator of Arrow forks well
    if others or threads.count("python") > 1:
        raise SystemExit(f"threads are running already: {', '.join(threads)}; set OMP_NUM_THREADS=1")


class Command:
    """A running command. said: its standard error so far. code: its exit status once it has ended, -9 for SIGKILL."""

    def __init__(self, words: Sequence[object]) -> None:
        self.said = ""
        self.code: int | None = None
        self._reader, writer = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become([str(word) for word in words], writer)
        os.close(writer)
        os.set_blocking(self._reader, False)

    def ended(self) -> bool:
        """Whether it has; takes up what it has said meanwhile."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._listen()
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                os.close(self._reader)
        return self.code is not None

    def wait(self, until: Callable[[], bool] = lambda: False, patience: float = _PATIENCE) -> bool:
        """Until something is so (True) or the command has ended (False). TimeoutError where neither comes."""
        end = time.monotonic() + patience
        while not self.ended():
            if until():
                return True
            if time.monotonic() > end:
                os.killpg(self.pid, signal.SIGKILL)
                raise TimeoutError(f"neither went on nor ended in {patience:g} s:\n{self.said[-2000:]}")
            time.sleep(0.002)
        return False

    def processes_left(self) -> int:
        """Live processes of the group it led, itself among them."""
        return sum(_group_if_alive(path) == self.pid for path in Path("/proc").glob("[0-9]*"))

    def _listen(self) -> None:
        try:
            while chunk := os.read(self._reader, 1 << 16):
                self.said += chunk.decode(errors="replace")
        except BlockingIOError:
            pass


def _become(words: list[str], writer: int) -> NoReturn:
    code = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(writer, 2)
        code = cli.main(words)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _group_if_alive(process: Path) -> int | None:
    try:
        state, _, group = (process / "stat").read_text().rpartition(")")[2].split()[:3]
    except (OSError, ValueError):  # it is gone meanwhile
        return None
    return None if state == "Z" else int(group)
