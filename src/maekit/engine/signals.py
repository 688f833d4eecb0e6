"""Being asked to stop: SIGTERM, SIGUSR1 (which SLURM sends before the time is over) and Ctrl-C."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ASKS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequest:
    """What has been asked: `signal` is None, or the name of the first signal that came."""

    def __init__(self, saves: bool = True) -> None:
        self.signal: str | None = None
        after = "after the pass that is under way"
        self._what = f"saves {after}, then ends" if saves else f"nothing is kept; it ends {after}"

    def _take(self, number: int, _: FrameType | None) -> None:
        # torchrun passes each signal on, and ends what is slow
        together = "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("WORLD_SIZE", "1")) > 1
        if self.signal is not None and together and number != signal.SIGINT:
            return
        if self.signal is not None:  # asked twice: at once, without saving
            if number == signal.SIGINT and hasattr(sys, "ps1"):  # at a prompt, or in a notebook, which lives on
                raise KeyboardInterrupt
            os._exit(128 + number)
        self.signal = signal.Signals(number).name
        if together:
            return
        # write, not print or a log: those may be what the signal interrupted
        os.write(2, f"{self.signal}: {self._what}; once more ends at once\n".encode())


@contextmanager
def stop_requests(saves: bool = True) -> Iterator[StopRequest]:
    """Inside the block a first signal is noted, a second ends the process (at a prompt, the work) at once. saves: what
    is said of the end.

    Outside the main thread, where Python takes no signals, nothing is ever asked.
    """
    request = StopRequest(saves)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request._take) for number in _ASKS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
