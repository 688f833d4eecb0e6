"""A resumed run is the run that was interrupted, or is refused with what differs."""

import json
import shutil

import pytest

import tiny
from maekit.data.sources import open_source
from maekit.data.sources.source import full_fingerprint
from maekit.engine import metrics
from maekit.engine.drift import identity, refuse_drift
from maekit.errors import RunError

WORDS = ("pretrain", "vit-tiny", *tiny.SIZES, "--lr", "1e-3", "--workers", "0", "--run.no-tensorboard", "--resume")


@pytest.fixture(scope="module")
def interrupted(maekit_here, photos, tmp_path_factory):
    """A run whose newest checkpoint is that of step 2 of 4."""
    folder = tmp_path_factory.mktemp("drift") / "run"
    done = maekit_here(
        *WORDS, "--data", photos, "--out", folder, "--steps", "4", "--batch-size", "4", "--checkpoint-every", "2"
    )
    assert done.returncode == 0, done.stderr
    shutil.rmtree(folder / "checkpoints" / "step-4")
    return folder


def resume(maekit_here, interrupted, folder, *more):
    shutil.copytree(interrupted, folder / "run")
    return maekit_here(*WORDS, "--out", folder / "run", *more)


def other_photos(photos, folder):
    changed = shutil.copytree(photos, folder / "photos")
    next(changed.rglob("*.png")).unlink()
    return changed


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("--seed", "1"), "run.seed was 0, is 1"),
        (("--batch-size", "8"), "schedule.batch_size was 4, is 8"),
        (("--mask-ratio", "0.5"), "mask.ratio was 0.75, is 0.5"),
        (("--steps", "5"), "schedule.steps was 4, is 5"),
    ],
)
def test_changes_are_refused_and_listed(maekit_here, interrupted, photos, tmp_path, changes, words):
    done = resume(maekit_here, interrupted, tmp_path, "--data", photos, "--steps", "4", "--batch-size", "4", *changes)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert words in last
    assert "--allow-drift" in last
    assert len(metrics.read(tmp_path / "run" / "metrics.jsonl")) == 4


def test_other_images_are_refused_and_several_changes_are_all_named(maekit_here, interrupted, photos, tmp_path):
    changed = other_photos(photos, tmp_path)
    words = ("--data", changed, "--steps", "4", "--batch-size", "4", "--seed", "3")
    done = resume(maekit_here, interrupted, tmp_path, *words)
    assert done.returncode == 1
    assert "the images (their number, names, labels or sizes changed)" in done.stderr
    assert "run.seed was 0, is 3" in done.stderr


def test_allowed_drift_goes_on_and_is_noted(maekit_here, interrupted, photos, tmp_path):
    words = ("--data", photos, "--steps", "6", "--batch-size", "8", "--allow-drift")
    done = resume(maekit_here, interrupted, tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert "going on in spite of differences: schedule.batch_size was 4, is 8" in done.stderr
    assert "going on from step 2" in done.stderr
    records = metrics.read(tmp_path / "run" / "metrics.jsonl")
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["schedule"]["batch_size"] == 8


def test_another_optimizer_cannot_go_on_whatever_is_allowed(maekit_here, interrupted, photos, tmp_path):
    words = ("--data", photos, "--steps", "4", "--batch-size", "4", "--optimizer.name", "muon", "--allow-drift")
    done = resume(maekit_here, interrupted, tmp_path, *words)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "optimizer.name was adamw, is muon; give the same again, or begin anew from its weights by --weights" in last


def test_where_and_how_a_run_is_executed_may_change(maekit_here, interrupted, photos, tmp_path):
    moved = shutil.copytree(photos, tmp_path / "photos")
    words = ("--data", moved, "--steps", "4", "--batch-size", "4", "--keep", "1", "--checkpoint-every", "1")
    done = resume(maekit_here, interrupted, tmp_path, *words)
    assert done.returncode == 0, done.stderr
    losses = [
        [record["loss"] for record in metrics.read(run / "metrics.jsonl")] for run in (interrupted, tmp_path / "run")
    ]
    assert losses[0] == losses[1]


def test_many_differences_are_counted_rather_than_listed():
    then = {"identity": identity({f"option{number}": 1 for number in range(12)}, "a")}
    now = {"identity": identity({f"option{number}": 2 for number in range(12)}, "a")}
    with pytest.raises(RunError, match="and 4 more"):
        refuse_drift(then, now, allowed=False)


def test_the_fingerprint_is_as_full_as_was_asked_for(maekit_here, photos, tmp_path):
    words = [*WORDS[:-1], "--data", photos, "--steps", "1", "--batch-size", "4"]
    for name, more in (("sampled", ()), ("full", ("--data.fingerprint", "full"))):
        done = maekit_here(*words, "--out", tmp_path / name, *more)
        assert done.returncode == 0, done.stderr
    known = open_source(str(photos))
    kept = {name: json.loads((tmp_path / name / "config.json").read_text())["data"]["fingerprint"]
            for name in ("sampled", "full")}  # fmt: skip
    assert kept == {"sampled": known.fingerprint(), "full": full_fingerprint(known)}
