"""SIGTERM and SIGUSR1: save, leave with code 75 within seconds, go on with --resume; twice: leave at once."""

import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

import tiny
from maekit import storage
from maekit.engine import metrics
from maekit.errors import TrainingError
from processes import Started
from toy_task import ToyTask, plan_of, run

TWICE = """
import os, sys, time
from maekit.engine.signals import stop_requests
with stop_requests() as request:
    os.kill(os.getpid(), int(sys.argv[1]))
    print(request.signal, flush=True)
    os.kill(os.getpid(), int(sys.argv[2]))
    print("still here", flush=True)
"""


@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGTERM, signal.SIGTERM), (signal.SIGUSR1, signal.SIGTERM), (signal.SIGINT,) * 2]
)
def test_a_second_signal_ends_the_process_at_once(first, second):
    words = [sys.executable, "-c", TWICE, str(int(first)), str(int(second))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + second
    assert done.stdout == f"{first.name}\n"


def test_at_a_prompt_a_second_interrupt_ends_the_work_alone():
    words = [sys.executable, "-c", f"import sys; sys.ps1 = '>>> '\n{TWICE}", "2", "2"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stderr.endswith("KeyboardInterrupt\n")
    assert done.stdout == "SIGINT\n"


def test_signals_mean_what_they_meant_before_once_the_run_is_over():
    from maekit.engine.signals import stop_requests

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    with stop_requests() as request:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert request.signal == "SIGUSR1"
    assert before == {number: signal.getsignal(number) for number in before}


@pytest.mark.slow
def test_a_terminated_run_saves_says_so_and_goes_on(maekit_here, photos, tmp_path):
    folder = tmp_path / "run"
    words = [
        "pretrain", "vit-tiny", *tiny.SIZES, "--data", photos, "--out", folder, "--batch-size", "8", "--lr", "1e-3",
        "--workers", "1", "--checkpoint-every", "1000000", "--run.no-tensorboard",
    ]  # fmt: skip
    process = Started(*words, "--steps", "100000")
    while not (folder / "metrics.jsonl").exists() or not metrics.read(folder / "metrics.jsonl"):
        assert process.poll() is None, process.err
        time.sleep(0.01)
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 75
    assert time.monotonic() - asked < 10
    said = process.err
    assert "Traceback" not in said
    *_, answered, stopped, resuming = said.splitlines()
    assert answered.startswith("SIGTERM: saves after the pass that is under way")
    assert stopped.startswith("maekit: stopped by SIGTERM after saving step ")
    assert resuming == f"go on with: maekit {shlex.join([*map(str, words), '--steps', '100000', '--resume'])}"
    step = int(stopped.split("after saving step ")[1])
    assert storage.read_facts(folder / "checkpoints" / f"step-{step}")["step"] == step

    done = maekit_here(*words, "--steps", step + 2, "--resume", "--allow-drift")
    assert done.returncode == 0, done.stderr
    assert f"going on from step {step}" in done.stderr
    assert metrics.last(folder / "metrics.jsonl")["step"] == step + 2


class SignalledTask(ToyTask):
    def loss(self, prepared):
        os.kill(os.getpid(), signal.SIGTERM)
        return super().loss(prepared)


def test_where_nothing_is_kept_nothing_is_said_to_be_saved(capfd):
    """A probe's training has no folder."""
    with pytest.raises(TrainingError, match="stopped by SIGTERM at step 1; nothing of this training is kept"):
        run(SignalledTask(), plan_of(5), None)
    assert "SIGTERM: nothing is kept; it ends after the pass that is under way" in capfd.readouterr().err
