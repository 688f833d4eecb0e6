"""Under torchrun: a process that dies or stands still, signals, restarts; what a person is told, and what is left."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tiny
from maekit import storage
from maekit.engine import metrics

WORDS = (
    "pretrain", "vit-tiny", *tiny.SIZES, "--batch-size", "4", "--lr", "1e-3", "--workers", "0", "--run.no-tensorboard",
    "--run.log-every", "1", "--checkpoint-every", "1000000", "--steps", "1000000",
)  # fmt: skip


class Job:
    """`torchrun -m maekit WORDS...` in two processes; what it prints is in a file."""

    def __init__(self, folder, photos, *words, launch=()):
        self.folder, self.said = folder, folder.with_name("said")
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            *launch,
            "-m",
        ]
        command += ["maekit", *map(str, (*WORDS, "--data", photos, "--out", folder, *words))]
        with self.said.open("wb") as to:
            self.agent = subprocess.Popen(command, stdout=to, stderr=to, start_new_session=True)

    def ranks(self):
        """Process numbers by rank, once there are two."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = dict(p.split(b"=", 1) for p in (folder / "environ").read_bytes().split(b"\0") if b"=" in p)
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == self.agent.pid and b"RANK" in words:
                found[int(words[b"RANK"])] = int(folder.name)
        return found

    def under_way(self, step=2, patience=90):
        """The ranks, once the run has come to this step."""
        until = time.monotonic() + patience
        while time.monotonic() < until:
            history = self.folder / "metrics.jsonl"
            if history.is_file() and any(record["step"] >= step for record in metrics.read(history)):
                return self.ranks()
            assert self.agent.poll() is None, self.text()
            time.sleep(0.1)
        raise AssertionError(self.text())

    def text(self):
        return self.said.read_text(errors="replace")

    def lines(self):
        """What maekit's own processes said beside their log."""
        return [line for line in self.text().splitlines() if line.startswith(("maekit: ", "go on with", "Traceback"))]

    def end(self, patience=60):
        self.agent.wait(patience)
        return self.text()


@pytest.fixture
def job(tmp_path, photos):
    jobs = []

    def start(*words, launch=()):
        jobs.append(Job(tmp_path / "run", photos, *words, launch=launch))
        return jobs[-1]

    yield start
    for one in jobs:
        for process in (*one.ranks().values(), one.agent.pid):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        one.agent.wait()


def saved(folder):
    return max(storage.read_facts(path)["step"] for path in (folder / "checkpoints").glob("step-*"))


def test_a_process_that_is_killed_ends_the_job_and_is_named(job):
    one = job("--checkpoint-every", "2")
    ranks = one.under_way(step=3)
    began = time.monotonic()
    os.kill(ranks[1], signal.SIGKILL)
    one.end(30)
    assert time.monotonic() - began < 30
    assert one.lines()[0].startswith(f"maekit: rank 1 (process {ranks[1]} on "), one.text()
    assert "was killed from outside, or ran out of memory" in one.lines()[0]
    assert sum(line.startswith("maekit: ") for line in one.lines()) == 1
    assert saved(one.folder) >= 2


def test_a_process_that_stands_still_ends_the_job(job):
    timeout = 5
    one = job("--run.hang-timeout", timeout)
    ranks = one.under_way()
    began = time.monotonic()
    os.kill(ranks[1], signal.SIGSTOP)
    one.end(timeout + 15)
    assert time.monotonic() - began < timeout + 15
    assert one.lines()[0].startswith(f"maekit: rank 1 (process {ranks[1]} on "), one.text()
    assert "has stood still" in one.lines()[0]


@pytest.mark.parametrize("to", ["one rank", "all", "torchrun"])
def test_a_signal_saves_once_and_is_one_line(job, to):
    one = job()
    ranks = one.under_way()
    asked = {"one rank": [ranks[1]], "all": [*ranks.values()], "torchrun": [one.agent.pid]}[to]
    for process in asked:
        os.kill(process, signal.SIGTERM)
    one.end(40)
    said = [line for line in one.lines() if line.startswith(("maekit: ", "go on with"))]
    assert re.match(r"maekit: stopped by .* after saving step \d+", said[0]), one.text()
    assert len(said) == 2
    assert said[1].startswith("go on with: torchrun --nproc-per-node 2 -m maekit")
    assert saved(one.folder) == int(said[0].rpartition(" ")[2])
    if to != "torchrun":  # which prints what its processes ended with
        assert re.search(r"exitcode *: 75", one.text())


def test_without_torchrun_its_processes_end_and_leave_the_folder_free(job, maekit_here, photos):
    one = job()
    ranks = one.under_way()
    os.kill(one.agent.pid, signal.SIGKILL)
    one.agent.wait()
    until = time.monotonic() + 30
    while any(Path(f"/proc/{process}").exists() for process in ranks.values()):
        assert time.monotonic() < until, one.text()
        time.sleep(0.1)
    done = maekit_here(*WORDS, "--data", photos, "--out", one.folder, "--resume", "--steps", saved(one.folder) + 1,
                       "--allow-drift")  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_run_that_torchrun_starts_again_goes_on(job):
    one = job("--steps", "40", "--checkpoint-every", "5", "--run.hang-timeout", "5", launch=("--max-restarts", "1"))
    ranks = one.under_way(step=12)
    os.kill(ranks[1], signal.SIGKILL)
    assert one.agent.wait(120) == 0, one.text()
    assert re.search(r"going on from step (10|15|20|25|30|35)\b", one.text())
    assert [record["step"] for record in metrics.read(one.folder / "metrics.jsonl")] == list(range(1, 41))


def test_a_folder_that_holds_a_run_is_one_line(job, photos, maekit_here, tmp_path):
    done = maekit_here(*WORDS, "--data", photos, "--out", tmp_path / "run", "--steps", "1")
    assert done.returncode == 0, done.stderr
    one = job()
    one.end(60)
    assert len(one.lines()) == 2, one.text()  # the other is torchrun's own traceback
    assert "holds a run already" in one.lines()[0]
