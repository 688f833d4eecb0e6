"""kill -9 at any moment: the resumed run is the run that would have been."""

import random
import signal
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tiny
from maekit.engine import metrics
from processes import Started, in_its_own

STEPS = 90
KILLS = 2


def command(photos, folder, *more):
    return (
        "pretrain", "vit-tiny", *tiny.SIZES, "--data", photos, "--out", folder, "--steps", STEPS, "--lr", "1e-3",
        "--batch-size", "8", "--micro-batch-size", "4", "--workers", "2", "--checkpoint-every", "3", "--run.ema", "0.9",
        *more,
    )  # fmt: skip


def lines_of(folder):
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_after(process, folder, lines, delay):
    """SIGKILL so long after the history has so many lines; many of these moments lie in the writing of a checkpoint."""
    while lines_of(folder) < lines and process.poll() is None:
        time.sleep(0.001)
    time.sleep(delay)
    assert process.poll() is None, "the run was over before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()


def complete(words):
    """Run to the end; what was said on standard error."""
    done = in_its_own(*words)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def runs(photos, tmp_path_factory):
    """(the folder of an uninterrupted run, that of a run killed twice, what its last process said)."""
    root, draw = tmp_path_factory.mktemp("kill"), random.Random()
    whole, killed = root / "whole", root / "killed"
    complete(command(photos, whole))
    for _ in range(KILLS):
        process = Started(*command(photos, killed, "--resume"))
        lines = max(lines_of(killed), 1) + draw.randrange(4, STEPS // (2 * KILLS))
        kill_after(process, killed, lines, draw.uniform(0, 0.05))
    with (killed / "metrics.jsonl").open("a") as file:
        file.write('{"step": 80, "epoch": 53.3, "lo')
    return whole, killed, complete(command(photos, killed, "--resume"))


@pytest.mark.slow
def test_every_loss_is_that_of_the_uninterrupted_run(runs):
    whole, killed, _ = runs
    histories = [
        [(record["step"], record["loss"].hex(), record["gradient_norm"].hex()) for record in metrics.read(path)]
        for path in (whole / "metrics.jsonl", killed / "metrics.jsonl")
    ]
    assert [step for step, *_ in histories[0]] == list(range(1, STEPS + 1))
    assert histories[0] == histories[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", "model_ema.safetensors"])
def test_the_weights_are_the_same_bytes(runs, name):
    whole, killed, _ = runs
    assert (whole / name).read_bytes() == (killed / name).read_bytes()


@pytest.mark.slow
def test_it_went_on_rather_than_starting_anew(runs):
    _, _, said = runs
    step = int(said.split("going on from step ")[1].split()[0])
    assert step >= 9
    assert step % 3 == 0


@pytest.mark.slow
def test_tensorboard_has_one_history(runs):
    _, killed, _ = runs
    board = EventAccumulator(str(killed / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    records = metrics.read(killed / "metrics.jsonl")
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [
        (record["step"], pytest.approx(record["loss"])) for record in records
    ]


@pytest.mark.slow
def test_nothing_of_the_killed_processes_is_left(runs):
    _, killed, _ = runs
    assert not list(killed.rglob("*.part"))
    assert not (killed / "lock").exists()
