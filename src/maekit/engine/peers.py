"""Whether the processes that train together still live, and what a person is told of one that does not.

Each gives a sign of life in torchrun's store every second, from a thread of its own, and looks at the next one's. A
device that waits for a process that is gone cannot be asked to stop: then this thread ends the process.
"""

import logging
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from torch.distributed.distributed_c10d import Store

log = logging.getLogger("maekit")

_BEAT = 1.0  # seconds between two signs of life
_SURELY = 4 * _BEAT  # without a sign: gone, where something has failed already
_GRACE = 8.0  # seconds in which the main thread may end by itself what cannot go on
_WITHOUT_LAUNCHER = 25.0  # seconds in which it may save and end
_ALARM, _FAILED = "alarm", "failed"


class Peers:
    """The other processes of a job, as this one sees them."""

    def __init__(self, store: Store, rank: int, size: int, timeout: float) -> None:
        """timeout: seconds without a sign of life after which a process is taken to be lost."""
        self._store, self._rank, self._size, self._timeout = store.clone(), rank, size, timeout
        self._asked = threading.Lock()  # a store takes one question at a time
        self._ended = threading.Event()
        self._launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
        self._alone_since: float | None = None
        self._set(f"who/{rank}", f"{os.getpid()} {socket.gethostname()}")
        self._set(f"beat/{rank}", "0")  # one that dies within a second has lived
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def leave(self, error: BaseException | None) -> None:
        """Watch no longer. The error that ends this process, if one does, is what others are told."""
        self._ended.set()
        with suppress(RuntimeError):
            if error is not None:
                self._set(_FAILED, f"rank {self._rank}: {error}")
            self._set(f"left/{self._rank}", "1")

    def reason(self) -> tuple[str, bool]:
        """Why the others cannot be reached, and whether one of them says it by itself."""
        before = self._beats()
        until = time.monotonic() + _SURELY
        while time.monotonic() < until:
            with suppress(RuntimeError):
                if self._has(_FAILED):
                    return self._get(_FAILED), True
                if self._has(_ALARM):
                    return self._end_still(self._get(_ALARM)), False
            time.sleep(_BEAT / 4)
        after = self._beats()
        lost = [rank for rank in after if rank != self._rank and after[rank] == before.get(rank)]
        if lost:
            return self._end_still(", ".join(self._told(rank) for rank in lost)), False
        return "another process of this job failed or stood still; its own line says why", not after

    def first_to_say(self, text: str) -> bool:
        """Whether no other process has said this."""
        with suppress(RuntimeError), self._asked:
            return int(self._store.add(f"said/{sha256(text.encode()).hexdigest()}", 1)) == 1
        return self._rank == 0

    def _watch(self) -> None:
        beat, neighbour = 0, (self._rank + 1) % self._size
        seen, seen_at = "", time.monotonic()
        while not self._ended.wait(_BEAT):
            self._mind_launcher()
            try:
                self._set(f"beat/{self._rank}", str(beat := beat + 1))
                if self._has(_ALARM):
                    self._end(self._get(_ALARM))
                    return
                if self._has(f"left/{neighbour}"):
                    seen_at = time.monotonic()
                elif self._has(f"beat/{neighbour}") and (now := self._get(f"beat/{neighbour}")) != seen:
                    seen, seen_at = now, time.monotonic()
            except RuntimeError:  # whoever keeps the store is gone, or has not come
                pass
            if time.monotonic() - seen_at > self._timeout:
                with suppress(RuntimeError):
                    self._set(_ALARM, self._told(neighbour))

    def _mind_launcher(self) -> None:
        """Without torchrun nobody would end what stands still: it is saved and ended."""
        if self._launcher is None or os.getppid() == self._launcher:
            return
        if self._alone_since is None:
            self._alone_since = time.monotonic()
            if self._rank == 0:
                log.warning("torchrun is gone; ending")
            os.kill(os.getpid(), signal.SIGTERM)
        elif time.monotonic() - self._alone_since > _WITHOUT_LAUNCHER:
            os._exit(1)

    def _end(self, reason: str) -> None:
        """End this process unless it ends by itself."""
        self._end_still(reason)
        if not self._ended.wait(_GRACE):
            if self.first_to_say(reason):
                print(f"maekit: {reason}", file=sys.stderr, flush=True)
            os._exit(1)

    def _end_still(self, reason: str) -> str:
        """End those on this machine that stand still, for which torchrun would wait half a minute; the same reason."""
        for rank in range(self._size):
            with suppress(RuntimeError, OSError):
                process = self._get(f"who/{rank}").partition(" ")[0]
                if f"rank {rank} (process {process} on {socket.gethostname()})" in reason:
                    os.kill(int(process), signal.SIGKILL)
        return reason

    def _told(self, rank: int) -> str:
        process, host = self._get(f"who/{rank}").split(" ", 1)
        what = "was killed from outside, or ran out of memory"
        if host != socket.gethostname():
            what = "gives no sign of life"
        elif Path(f"/proc/{process}/stat").exists():
            what = f"has stood still for {self._timeout:g} s or more (--run.hang-timeout)"
        return f"rank {rank} (process {process} on {host}) {what}; the last checkpoint is sound: go on with --resume"

    def _beats(self) -> dict[int, str]:
        found = {}
        for rank in range(self._size):
            with suppress(RuntimeError):
                if self._has(f"beat/{rank}") and not self._has(f"left/{rank}"):
                    found[rank] = self._get(f"beat/{rank}")
        return found

    def _has(self, key: str) -> bool:
        with self._asked:
            return bool(self._store.check([key]))

    def _get(self, key: str) -> str:
        with self._asked:
            return bytes(self._store.get(key)).decode()

    def _set(self, key: str, value: str) -> None:
        with self._asked:
            self._store.set(key, value)
