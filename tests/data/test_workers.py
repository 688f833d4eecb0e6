"""Worker processes: gone when nobody needs them, however that comes about, and deaf to the job's signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maekit.data.workers import map_in_order, worker_count
from maekit.errors import DataError


def pid_after(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def gone(pids: set[int], within: float) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        if not any(map(alive, pids)):
            return True
        time.sleep(0.05)
    return False


def test_results_come_in_order() -> None:
    assert list(map_in_order(abs, range(-20, 0), 2)) == list(range(20, 0, -1))


def test_closing_ends_the_workers() -> None:
    results = map_in_order(pid_after, [0.0] * 1000, 2)
    pids = {next(results) for _ in range(6)}
    assert os.getpid() not in pids
    results.close()  # type: ignore[attr-defined]
    assert gone(pids, 2)


def test_a_killed_worker_is_one_clear_line() -> None:
    results = map_in_order(pid_after, [0.2] * 1000, 1)
    os.kill(next(results), signal.SIGKILL)
    with pytest.raises(DataError, match="a process that decodes images died"):
        list(results)


def test_signals_to_the_job_leave_workers_working() -> None:
    results = map_in_order(pid_after, [0.05] * 10, 1)
    pid = next(results)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        os.kill(pid, number)
    assert list(results) == [pid] * 9


PARENT = """
import os, sys, time
from maekit.data.workers import map_in_order
def work(seconds):
    if seconds < 0:
        raise ValueError("a bug in the work")
    time.sleep(seconds)
    return os.getpid()
if __name__ == "__main__":
    results = map_in_order(work, [0.01] * 1000 + [-1] * 1000, 2)
    print(*{next(results) for _ in range(8)}, flush=True)
    if sys.argv[1] == "wait":
        time.sleep(60)
    if sys.argv[1] == "raise in work":
        list(results)
    raise RuntimeError("a bug while results are open")
"""


@pytest.mark.parametrize("end", ["kill", "raise", "raise in work"])
def test_workers_go_with_their_parent(tmp_path: Path, end: str) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    command = [sys.executable, str(script), "wait" if end == "kill" else end]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        pids = {int(word) for word in parent.stdout.readline().split()}
        if end == "kill":
            parent.kill()
        assert parent.wait(15) == (-signal.SIGKILL if end == "kill" else 1)
    assert pids
    assert gone(pids, 5)


def test_default_count_follows_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worker_count(3) == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert worker_count(None) == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert worker_count(None) == 7
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert worker_count(None) == 0
