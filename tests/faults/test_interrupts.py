"""An interrupted training saves and returns in Python; a terminated one is `Stopped`; the command leaves with 75."""

import json
import signal
import time

import pytest

from maekit import storage
from maekit.engine import metrics
from processes import Started

PROGRAM = """
import json, signal, maekit

long = dict(out="run", device="cpu", workers=0, checkpoint_every=10**6, val_every=10**6)
before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
try:
    run = maekit.pretrain("digits", steps=100_000, **long)
except maekit.Stopped as stop:
    print(json.dumps([stop.signal, stop.step, stop.run]))
else:
    print(json.dumps([run.stopped, run.complete, run.steps, run.run, run.loss, str(run)]))
    run = maekit.pretrain("digits", steps=run.steps + 1, resume=True, allow_drift=True, **long)
    print(json.dumps([run.stopped, run.complete, run.steps]))
assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
"""


def interrupted(process, folder, number):
    """A process that got a signal once its run had begun: (exit code, standard output, standard error)."""
    history = folder / "run" / "metrics.jsonl"
    while not history.exists() or not metrics.read(history):
        assert process.poll() is None, process.err
        time.sleep(0.01)
    process.send_signal(number)
    code = process.wait()
    assert "Traceback" not in process.err
    return code, process.out, process.err


@pytest.mark.slow
def test_an_interrupt_saves_and_returns(tmp_path):
    code, out, err = interrupted(Started(program=PROGRAM, cwd=tmp_path), tmp_path, signal.SIGINT)
    assert code == 0, err
    stopped, again = map(json.loads, out.splitlines())
    name, complete, step, run, loss, said = stopped
    assert (name, complete, run) == ("SIGINT", False, "run")
    goes_on = "the same call with out='run', resume=True goes on"
    assert said == f"stopped by SIGINT after saving step {step}; {goes_on}"
    assert loss == metrics.read(tmp_path / "run" / "metrics.jsonl")[0]["loss"]
    assert storage.read_facts(tmp_path / "run" / "checkpoints" / f"step-{step}")["step"] == step
    assert again == [None, True, step + 1]
    assert "SIGINT: saves after the pass that is under way" in err


@pytest.mark.slow
def test_a_termination_is_raised(tmp_path):
    code, out, err = interrupted(Started(program=PROGRAM, cwd=tmp_path), tmp_path, signal.SIGTERM)
    assert code == 0, err
    name, step, run = json.loads(out)
    assert (name, run) == ("SIGTERM", "run")
    assert (tmp_path / "run" / "checkpoints" / f"step-{step}").is_dir()


@pytest.mark.slow
def test_the_command_leaves_with_75_after_an_interrupt(tmp_path):
    words = "pretrain digits --steps 100000 --out run --device cpu --workers 0 --val-every 1000000 --json"
    code, out, err = interrupted(Started(*words.split(), cwd=tmp_path), tmp_path, signal.SIGINT)
    assert (code, out) == (75, "")
    *_, stopped, resuming = err.splitlines()
    assert stopped.startswith("maekit: stopped by SIGINT after saving step ")
    assert resuming.startswith("go on with: maekit pretrain digits")
