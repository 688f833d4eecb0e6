"""Under torchrun: a process that dies or stands still, signals, restarts; what a person is told, and what is left."""

import os
import re
import signal
import socket
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
TOGETHER = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
SCRIPT = ("bash", str(Path(__file__).parents[2] / "examples" / "cluster" / "torchrun.sh"))


class Job:
    """`torchrun -m maekit WORDS...` in two processes; what it prints is in a file."""

    def __init__(self, folder, photos, *words, launch=(), by=TOGETHER, said="said"):
        self.folder, self.said = folder, folder.with_name(said)
        command = [*by, *launch] if by is SCRIPT else [*by, *launch, "-m", "maekit"]
        command += map(str, (*WORDS, "--data", photos, "--out", folder, *words))
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

    def start(*words, **options):
        jobs.append(Job(tmp_path / "run", photos, *words, **options))
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


def test_a_run_survives_a_process_that_is_killed_and_ends_where_one_stands_still(job):
    timeout = 5
    one = job("--checkpoint-every", "5", "--run.hang-timeout", timeout, launch=("--max-restarts", "1"))
    killed = one.under_way(step=12)[1]
    os.kill(killed, signal.SIGKILL)
    began = time.monotonic()
    while not one.lines():
        assert time.monotonic() - began < 30
        time.sleep(0.1)
    assert one.lines()[0].startswith(f"maekit: rank 1 (process {killed} on "), one.text()
    assert "was killed from outside, or ran out of memory" in one.lines()[0]
    assert sum(line.startswith("maekit: ") for line in one.lines()) == 1

    while not (again := re.search(r"going on from step (\d+)", one.text())):
        assert one.agent.poll() is None, one.text()
        time.sleep(0.1)
    assert int(again[1]) >= 10
    ranks = one.under_way(step=int(again[1]) + 100)
    began = time.monotonic()
    os.kill(ranks[1], signal.SIGSTOP)
    one.end(timeout + 15)
    assert time.monotonic() - began < timeout + 15
    last = [line for line in one.lines() if line.startswith("maekit: ")][-1]
    assert last.startswith(f"maekit: rank 1 (process {ranks[1]} on "), one.text()
    assert "has stood still" in last
    steps = [record["step"] for record in metrics.read(one.folder / "metrics.jsonl")]
    assert steps == list(range(1, len(steps) + 1))


def said_of_stopping(one):
    """maekit's own lines, once the job has ended."""
    one.end(40)
    said = [line for line in one.lines() if line.startswith(("maekit: ", "go on with"))]
    assert re.match(r"maekit: stopped by .* after saving step \d+", said[0]), one.text()
    assert said[1].startswith("go on with: torchrun --nproc-per-node 2 -m maekit")
    assert saved(one.folder) == int(said[0].rpartition(" ")[2])
    return said


def test_a_signal_to_one_process_saves_once(job):
    one = job()
    os.kill(one.under_way()[1], signal.SIGTERM)
    assert len(said_of_stopping(one)) == 2
    assert re.search(r"exitcode *: 75", one.text())


def test_a_signal_to_torchrun_saves_once(job):
    one = job()
    one.under_way()
    one.agent.terminate()
    assert len(said_of_stopping(one)) == 2


def test_without_torchrun_its_processes_end_and_leave_the_folder_free(job, maekit_here, photos):
    one = job()
    ranks = one.under_way()
    one.agent.kill()
    one.agent.wait()
    until = time.monotonic() + 30
    while any(Path(f"/proc/{process}").exists() for process in ranks.values()):
        assert time.monotonic() < until, one.text()
        time.sleep(0.1)
    more = ("--resume", "--steps", saved(one.folder) + 1, "--allow-drift")
    done = maekit_here(*WORDS, "--data", photos, "--out", one.folder, *more)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def two_machines(monkeypatch, tmp_path):
    """What examples/cluster/torchrun.sh is told, of two agents on this machine that wait for nobody."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    (tmp_path / "torchrun").write_text(f'#!/bin/bash\nexec {sys.executable} -m torch.distributed.run "$@"\n')
    (tmp_path / "torchrun").chmod(0o755)
    told = {"HEAD": "127.0.0.1", "PORT": str(port), "MACHINES": "1:2", "GPUS": "1", "JOB": "elastic",
            "PATH": f"{tmp_path}:{os.environ['PATH']}", "PET_LOCAL_ADDR": "127.0.0.1",
            "PET_RDZV_CONF": "last_call_timeout=1,keep_alive_interval=1,keep_alive_max_attempt=3"}  # fmt: skip
    for name, value in told.items():
        monkeypatch.setenv(name, value)


@pytest.mark.slow
@pytest.mark.usefixtures("two_machines")
def test_machines_come_and_go_and_the_run_goes_on(job):
    words = ("--checkpoint-every", "5")
    one = job(*words, by=SCRIPT)
    one.under_way(step=12)
    other = job(*words, by=SCRIPT, said="said by the other")

    def going_on(times):
        until, both = time.monotonic() + 60, ""
        while len(found := re.findall(r"going on from step (\d+)", both)) < times:
            assert one.agent.poll() is None, both
            assert time.monotonic() < until, both
            time.sleep(0.2)
            both = one.text() + other.text()
        steps = max(map(int, found))
        one.under_way(step=steps + 12)
        return steps, re.findall(r"(\d) devices x", one.text() + other.text())

    alone, devices = going_on(1)
    assert alone >= 12
    assert sorted(devices) == ["1", "2"]
    for process in (*other.ranks().values(), other.agent.pid):
        os.kill(process, signal.SIGKILL)
    left, devices = going_on(2)
    assert left >= alone + 10
    assert sorted(devices) == ["1", "1", "2"]
    one.agent.terminate()
    one.end(40)
    steps = [record["step"] for record in metrics.read(one.folder / "metrics.jsonl")]
    assert steps == list(range(1, len(steps) + 1))
    assert saved(one.folder) == len(steps)
