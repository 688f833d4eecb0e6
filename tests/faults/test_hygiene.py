"""Long runs and dead ones: memory stays flat, and nothing is left behind that stands in the way of the next run."""

import json
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

import tiny
from maekit.data.workers import map_in_order
from maekit.engine import metrics
from maekit.engine.run_state import open_run
from maekit.errors import DataError
from maekit.recipes.pretrain import PretrainTask
from processes import Started

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

WORDS = ("pretrain", "vit-tiny", *tiny.SIZES, "--batch-size", "4", "--lr", "1e-3", "--workers", "2")
SHARED_MEMORY = Path("/dev/shm")


def shared_files() -> set[str]:
    """Of maekit and torch; those of joblib, in this process, belong to other tests."""
    names = {path.name for path in SHARED_MEMORY.iterdir() if path.name.startswith(("torch_", "sem.", "pym-"))}
    return {name for name in names if not name.startswith("sem.loky-")}


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def living(group: int) -> list[str]:
    """Processes of a group that have not ended."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, _, of = (process / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(of) == group and state != "Z":
            found.append(process.name)
    return found


@pytest.mark.slow
def test_memory_is_flat_over_two_thousand_steps(maekit_here, photos, tmp_path, monkeypatch):
    used, passes, loss = {}, iter(range(1, 10_000)), PretrainTask.loss
    others = set(children(os.getpid()))  # servers of processes that other tests started

    def watched(task, batch):
        if (number := next(passes)) in (500, 1250, 2000):
            workers = [pid for pid in children(os.getpid()) if pid not in others]
            used[number] = [resident_mb(pid) for pid in (os.getpid(), *workers)]
        return loss(task, batch)

    monkeypatch.setattr(PretrainTask, "loss", watched)
    small = ("--model.depth", "1", "--image-size", "16", "--run.log-every", "4")
    done = maekit_here(*WORDS, *small, "--data", photos, "--out", tmp_path / "run", "--steps", "2000")
    assert done.returncode == 0, done.stderr
    assert len(used[500]) == len(used[2000]) == 3  # this process and its two workers
    for before, after in zip(used[500], used[2000], strict=True):
        assert after - before < 12, used


def test_runs_in_one_process_leave_no_files_open_and_keep_the_log(maekit_here, photos, tmp_path):
    words = (*WORDS, "--data", photos, "--out", tmp_path / "run", "--resume", "--allow-drift")
    assert maekit_here(*words, "--steps", "2").returncode == 0
    began = (tmp_path / "run" / "log.txt").read_text()
    files, shared, others = open_files(), shared_files(), children(os.getpid())
    assert maekit_here(*words, "--steps", "3").returncode == 0
    assert maekit_here(*words, "--steps", "4", "--device", "cuda:7").returncode == 1
    assert open_files() == files
    assert children(os.getpid()) == others
    assert shared_files() <= shared
    assert (tmp_path / "run" / "log.txt").read_text().startswith(began)


@pytest.mark.slow
def test_a_killed_run_can_go_on_at_once_and_leaves_nothing(photos, tmp_path):
    shared, folder = shared_files(), tmp_path / "run"
    process = Started(*WORDS, "--data", photos, "--out", folder, "--steps", "100000", "--run.no-tensorboard")
    while not metrics.last(folder / "metrics.jsonl"):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with open_run(folder, resume=True, overwrite=False):  # its workers may still live, but hold no lock
        pass
    end = time.monotonic() + 5
    while (left := living(process.pid)) and time.monotonic() < end:
        time.sleep(0.05)
    assert left == []
    assert shared_files() <= shared


def more_than_fits(_: int) -> torch.Tensor:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    return torch.zeros(1000)


def test_shared_memory_that_is_full_ends_the_run_in_one_line():
    shared, began = shared_files(), time.monotonic()
    try:
        with pytest.raises(DataError, match=r"out of memory or of shared memory \(/dev/shm\)"):
            list(map_in_order(more_than_fits, range(4), 1))
        assert time.monotonic() - began < 30
    finally:
        for name in shared_files() - shared:  # torch's, made empty before it noticed
            (SHARED_MEMORY / name).unlink()


def test_the_history_of_a_million_steps_is_cut_back_at_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with path.open("w") as file:
        file.writelines(f'{{"step": {step}, "loss": 0.5, "lr": 0.001}}\n' for step in range(1, 1_000_001))
        file.write('{"step": 1000001, "lo')
    began = time.monotonic()
    metrics.History(tmp_path, tensorboard=False, after_step=999_000).close()
    assert metrics.last(path)["step"] == 999_000
    assert time.monotonic() - began < 1
    with path.open("rb") as file:
        assert json.loads(file.readline())["step"] == 1
    shutil.rmtree(tmp_path)
