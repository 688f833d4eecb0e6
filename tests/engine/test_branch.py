"""A run that goes on from another's checkpoint is the run it would have been."""

import json
import shutil

import pytest

import tiny
from maekit.config import ScheduleConfig
from maekit.engine import metrics
from maekit.engine.schedule import Plan
from maekit.errors import RunError, StorageError
from toy_task import ADAMW, IMAGES, MUON, ToyTask, plan_of, run


def cooled(epochs, optimizer=ADAMW):
    """Eight steps an epoch, the last half of them cooldown."""
    schedule = ScheduleConfig(epochs=epochs, batch_size=8, warmup_epochs=0.25, course="cooldown", cooldown=0.5)
    return Plan.of(optimizer, schedule, IMAGES)


def checkpoint(folder, step, name):
    return (folder / "checkpoints" / f"step-{step}" / f"{name}.safetensors").read_bytes()


def losses(folder):
    return [record["loss"].hex() for record in metrics.read(folder / "metrics.jsonl")]


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("optimizer", [ADAMW, MUON], ids=lambda config: config.name)
def test_with_the_same_options_a_branch_is_the_run_it_left(tmp_path, optimizer, precision):
    trunk, options = tmp_path / "trunk", {"optimizer": optimizer, "precision": precision, "ema": 0.9}
    run(ToyTask(), plan_of(9, optimizer=optimizer), trunk, checkpoint_every=2, keep=9, **options)
    before = snapshot(trunk)
    outcome = run(
        ToyTask(), plan_of(9, optimizer=optimizer), tmp_path / "branch", branch=f"{trunk}/checkpoints/step-4", **options
    )
    assert outcome.step == 9
    for name in ("model", "optimizer", "ema"):
        assert checkpoint(tmp_path / "branch", 9, name) == checkpoint(trunk, 9, name)
    assert losses(tmp_path / "branch") == losses(trunk)
    assert snapshot(trunk) == before


def test_one_run_is_ended_at_several_lengths(tmp_path, caplog):
    """Branches that begin no later than their cooldown are the runs of their lengths, bit by bit."""
    trunk = tmp_path / "trunk"
    run(ToyTask(), cooled(8), trunk, checkpoint_every=8, keep=99)
    for epochs, step in ((2, 8), (4, 16), (4, 8), (12, 32)):
        direct, branch = tmp_path / f"direct-{epochs}", tmp_path / f"branch-{epochs}-{step}"
        run(ToyTask(), cooled(epochs), direct, overwrite=True)
        run(ToyTask(), cooled(epochs), branch, branch=f"{trunk}/checkpoints/step-{step}")
        for name in ("model", "optimizer"):
            assert checkpoint(branch, epochs * 8, name) == checkpoint(direct, epochs * 8, name)
        assert losses(branch) == losses(direct)
    assert "--branch: step" not in caplog.text


def test_a_rate_that_jumps_is_said(tmp_path, caplog):
    trunk = tmp_path / "trunk"
    run(ToyTask(), cooled(8), trunk, checkpoint_every=8, keep=99)
    run(ToyTask(), cooled(3), tmp_path / "branch", branch=f"{trunk}/checkpoints/step-16")
    # its cooldown would have begun at step 12, and its second rate, that of step 14, is the first that differs
    assert "--branch: step 14 had rate 0.01, not this run's 0.00711" in caplog.text


def test_a_branch_that_was_stopped_goes_on_in_its_own_folder(tmp_path):
    trunk, place = tmp_path / "trunk", f"{tmp_path}/trunk/checkpoints/step-8"
    run(ToyTask(), cooled(8), trunk, checkpoint_every=8, keep=99)
    run(ToyTask(), cooled(4), tmp_path / "whole", branch=place)
    run(ToyTask(), cooled(4), tmp_path / "branch", branch=place, checkpoint_every=12, keep=9)
    shutil.rmtree(tmp_path / "branch" / "checkpoints" / "step-32")
    shutil.rmtree(trunk)  # no longer needed
    run(ToyTask(), cooled(4), tmp_path / "branch", branch=place, resume=True)
    assert checkpoint(tmp_path / "branch", 32, "model") == checkpoint(tmp_path / "whole", 32, "model")


@pytest.mark.parametrize("place", ["", "/checkpoints", "/checkpoints/step-7", "/absent"])
def test_what_is_no_checkpoint_is_refused(tmp_path, place):
    run(ToyTask(), plan_of(4), tmp_path / "trunk")
    with pytest.raises(RunError, match="is no checkpoint of a run; name RUN/checkpoints/step-N"):
        run(ToyTask(), plan_of(4), tmp_path / "branch", branch=f"{tmp_path}/trunk{place}")
    assert not (tmp_path / "branch").exists()


def test_a_run_that_would_end_before_its_branch_is_refused(tmp_path):
    run(ToyTask(), plan_of(4), tmp_path / "trunk")
    with pytest.raises(RunError, match="this run would end before it, at step 4; give more --epochs"):
        run(ToyTask(), plan_of(4), tmp_path / "branch", branch=f"{tmp_path}/trunk/checkpoints/step-4")
    assert not (tmp_path / "branch").exists()


def test_a_damaged_checkpoint_is_named_and_left_where_it_is(tmp_path):
    run(ToyTask(), plan_of(4), tmp_path / "trunk", checkpoint_every=2)
    place = tmp_path / "trunk" / "checkpoints" / "step-2"
    (place / "optimizer.safetensors").write_bytes(b"x")
    with pytest.raises(StorageError, match=r"step-2/optimizer.safetensors: has 1 bytes"):
        run(ToyTask(), plan_of(4), tmp_path / "branch", branch=str(place))
    assert place.exists()
    assert not (tmp_path / "branch").exists()


WORDS = (
    "pretrain", "vit-tiny", *tiny.SIZES, "--batch-size", "4", "--lr", "1e-3", "--workers", "0", "--run.no-tensorboard",
    "--schedule.course", "cooldown", "--schedule.warmup-epochs", "1", "--run.log-every", "1", "--run.ema", "0.5",
)  # fmt: skip


@pytest.fixture(scope="module")
def trunk(maekit_here, photos, tmp_path_factory):
    """Ten steps of a run of thirty epochs, three steps each."""
    folder = tmp_path_factory.mktemp("branch") / "trunk"
    words = (*WORDS, "--data", photos, "--out", folder, "--epochs", "10", "--checkpoint-every", "6", "--keep", "9")
    done = maekit_here(*words)
    assert done.returncode == 0, done.stderr
    assert "30 (10 epochs), " in done.stderr
    assert ", cooldown from step 24 on" in done.stderr
    return folder


def test_by_command_from_the_runs_own_config(trunk, maekit_here, photos, tmp_path):
    config, place = trunk / "config.json", trunk / "checkpoints" / "step-6"
    branched = maekit_here("pretrain", config, "--branch", place, "--epochs", "4", "--out", tmp_path / "branch")
    assert branched.returncode == 0, branched.stderr
    assert "going on from step 6" in branched.stderr
    assert maekit_here(*WORDS, "--data", photos, "--epochs", "4", "--out", tmp_path / "direct").returncode == 0
    for name in ("model.safetensors", "model_ema.safetensors"):
        assert (tmp_path / "branch" / name).read_bytes() == (tmp_path / "direct" / name).read_bytes()
    assert losses(tmp_path / "branch") == losses(tmp_path / "direct")
    said = json.loads((tmp_path / "branch" / "config.json").read_text())["config"]["run"]
    assert said["branch"] == str(place)
    assert "branched from" in (tmp_path / "branch" / "report.html").read_text()


def test_a_run_that_began_from_weights_has_branches_too(trunk, maekit_here, photos, tmp_path):
    words = (*WORDS, "--data", photos, "--epochs", "4", "--checkpoint-every", "6", "--keep", "9")
    assert maekit_here(*words, "--weights", trunk, "--out", tmp_path / "trunk").returncode == 0
    config, place = tmp_path / "trunk" / "config.json", tmp_path / "trunk" / "checkpoints" / "step-6"
    done = maekit_here("pretrain", config, "--branch", place, "--out", tmp_path / "branch")
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "branch") == losses(tmp_path / "trunk")
    refused = maekit_here("pretrain", config, "--branch", place, "--weights", trunk, "--out", tmp_path / "other")
    assert refused.returncode == 2
    assert "take one of --branch and --weights" in refused.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("--seed", "3"), "this is not the run that it branches from: run.seed was 0, is 3"),
        (("--mask-ratio", "0.5"), "mask.ratio was 0.75, is 0.5"),
        (("--optimizer.name", "muon", "--allow-drift"), "optimizer.name was adamw, is muon"),
        (("--branch", "absent"), "--branch absent: is no checkpoint of a run"),
    ],
)
def test_another_run_is_refused_in_one_line_and_leaves_nothing(trunk, maekit_here, tmp_path, changes, words):
    place = trunk / "checkpoints" / "step-6"
    done = maekit_here(
        "pretrain", trunk / "config.json", "--branch", place, "--epochs", "4", "--out", tmp_path / "branch", *changes
    )
    assert done.returncode == 1
    assert words in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_branch_that_is_resumed_is_watched_for_drift(trunk, maekit_here, tmp_path):
    words = ("pretrain", trunk / "config.json", "--branch", trunk / "checkpoints" / "step-6", "--out", tmp_path / "run")
    assert maekit_here(*words, "--epochs", "4", "--checkpoint-every", "9", "--keep", "9").returncode == 0
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-12")
    done = maekit_here(*words, "--epochs", "5", "--resume")
    assert done.returncode == 1
    assert "schedule.epochs was 4.0, is 5.0" in done.stderr.splitlines()[-1]
    done = maekit_here(*words, "--epochs", "4", "--resume")
    assert done.returncode == 0, done.stderr
    assert "going on from step 9" in done.stderr
