"""Two runs cannot share a folder."""

import os
import socket
import time

import pytest

import tiny
from maekit.engine.run_state import open_run
from maekit.errors import RunError
from processes import Started

HOLDER = (
    "import sys, time; from pathlib import Path; from maekit.engine.run_state import open_run\n"
    "with open_run(Path(sys.argv[1]), resume=False, overwrite=False): print('held', flush=True); time.sleep(100)"
)


@pytest.fixture
def holder(tmp_path):
    """A process that holds tmp_path/run."""
    process = Started(tmp_path / "run", program=HOLDER)
    while not (said := process.out):
        assert process.poll() is None, process.err
        time.sleep(0.01)
    assert said == "held\n"
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("word", ["", "--resume", "--overwrite"])
def test_a_second_run_is_refused_with_host_and_process(maekit_here, photos, tmp_path, word):
    folder = tmp_path / "run"
    words = ["pretrain", "vit-tiny", *tiny.SIZES, "--data", photos, "--out", folder, "--batch-size", "4"]
    with open_run(folder, resume=False, overwrite=False) as held:
        held.write_config({"config": {}})
        done = maekit_here(*words, "--steps", "1", *([word] if word else []))
        assert done.returncode == 1
        assert f"in use by process {os.getpid()} on {socket.gethostname()}" in done.stderr
        assert sorted(entry.name for entry in folder.iterdir()) == ["config.json", "lock", "log.txt"]


def test_a_lock_lasts_as_long_as_its_process(holder, tmp_path):
    with (
        pytest.raises(RunError, match=f"process {holder.pid} on "),
        open_run(tmp_path / "run", resume=True, overwrite=False),
    ):
        pass
    holder.kill()
    holder.wait()
    assert (tmp_path / "run" / "lock").exists()
    began = time.monotonic()
    with open_run(tmp_path / "run", resume=True, overwrite=False) as run:
        assert (run.path / "lock").read_text().startswith(f"process {os.getpid()} ")
    assert time.monotonic() - began < 5
    assert not (tmp_path / "run" / "lock").exists()


def fail_in(folder, *, history="", resume=False):
    """A run that writes its config and some history, and fails."""
    with open_run(folder, resume=resume, overwrite=False) as run:
        run.write_config({})
        (folder / "metrics.jsonl").write_text(history)
        raise ZeroDivisionError


def test_a_run_that_fails_before_its_first_step_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        fail_in(tmp_path / "deep" / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_later_keeps_what_it_has(tmp_path):
    with pytest.raises(ZeroDivisionError):
        fail_in(tmp_path / "run", history='{"step": 1}\n')
    assert sorted(entry.name for entry in (tmp_path / "run").iterdir()) == ["config.json", "log.txt", "metrics.jsonl"]


def test_files_that_were_there_before_a_failure_stay(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(ZeroDivisionError):
        fail_in(tmp_path, resume=True)
    assert (tmp_path / "pictures").is_dir()
