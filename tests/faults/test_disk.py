"""A disk that is full: one line, and nothing that was there is lost."""

import contextlib
import resource

import pytest

import tiny
from maekit import storage

WORDS = ("pretrain", "vit-tiny", *tiny.SIZES, "--batch-size", "8", "--workers", "0", "--lr", "1e-3", "--resume")


@contextlib.contextmanager
def files_of_at_most(size):
    """Inside the block a write that makes a file larger fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def interrupted(maekit_here, photos, tmp_path):
    """A run whose newest checkpoint is that of step 3 of 6."""
    folder = tmp_path / "run"
    done = maekit_here(*WORDS, "--data", photos, "--out", folder, "--steps", "6", "--checkpoint-every", "3")
    assert done.returncode == 0, done.stderr
    storage.remove(folder / "checkpoints" / "step-6")
    return folder


@pytest.mark.parametrize("size", [100, 2_000, 40_000])
def test_a_full_disk_ends_the_run_in_one_line_and_loses_nothing(interrupted, maekit_here, photos, size):
    words = (*WORDS, "--data", photos, "--out", interrupted, "--steps", "6", "--checkpoint-every", "3")
    with files_of_at_most(size):
        done = maekit_here(*words)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("maekit: ")
    assert "cannot be written" in last
    assert storage.read_facts(interrupted / "checkpoints" / "step-3")["step"] == 3
    assert [entry.name for entry in (interrupted / "checkpoints").iterdir()] == ["step-3"]
    assert not list(interrupted.rglob("*.part"))
    assert maekit_here(*words).returncode == 0


def test_a_disk_that_is_full_from_the_start_is_left_as_it_was(maekit_here, photos, tmp_path):
    with files_of_at_most(1_000):
        done = maekit_here(*WORDS, "--data", photos, "--out", tmp_path / "runs" / "run", "--steps", "2")
    assert done.returncode == 1
    assert "config.json: cannot be written" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_cannot_be_written_does_not_stop_a_run(maekit_here, photos, interrupted):
    (interrupted / "log.txt").unlink()
    (interrupted / "log.txt").symlink_to("/dev/full")
    done = maekit_here(*WORDS, "--data", photos, "--out", interrupted, "--steps", "6", "--checkpoint-every", "3")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
