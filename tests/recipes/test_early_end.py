"""`maekit pretrain --validation.stop-after`: it ends as a whole run, says why, and may be carried on or cooled down."""

import itertools
import json
import re
import shlex

import pytest
from safetensors.torch import load_file

import maekit
import tiny
from maekit.engine import metrics
from maekit.recipes import validation
from maekit.recipes.pretrain import Pretraining

WORDS = ("pretrain", "vit-tiny", *tiny.SIZES, "--batch-size", "8", "--lr", "1e-3", "--workers", "0",
         "--schedule.course", "constant", "--schedule.warmup-epochs", "0", "--steps", "20", "--val-every", "2",
         "--checkpoint-every", "7")  # fmt: skip
STOPS = ("--validation.stop-after", "2")


def falling(monkeypatch):
    """RankMe falls from one validation to the next, whatever is learned."""
    ranks = itertools.count(20, -1)
    monkeypatch.setattr(validation, "rankme", lambda _: float(next(ranks)))


@pytest.fixture(scope="module")
def ended(maekit_here, photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("early") / "run"
    with pytest.MonkeyPatch.context() as patch:
        falling(patch)
        done = maekit_here(*WORDS, *STOPS, "--data", photos, "--val", photos, "--out", folder, "--json")
    assert done.returncode == 0, done.stderr
    return done, folder


@pytest.fixture
def quick(monkeypatch):
    """Runs without a report, whose RankMe falls."""
    falling(monkeypatch)
    monkeypatch.setattr(Pretraining, "_report", lambda *_: None)


def test_it_ends_as_a_whole_run_and_says_why(ended):
    done, folder = ended
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["steps"] == 9  # validated after 3, 6 and 9 steps, the first time best
    words = "ended at step 9 of 20: RankMe was at its best at step 3, 19, and not in 2 validations since"
    assert answer["ended_early"].startswith(words)
    assert [line for line in done.stderr.splitlines() if words in line]
    assert [record["step"] for record in metrics.read(folder / "metrics.jsonl")][-1] == 9
    assert (folder / "checkpoints" / "step-9").is_dir()
    assert isinstance(maekit.load(folder), maekit.MaskedAutoencoder)
    assert "Ended at step 9 of 20: RankMe was at its best" in (folder / "report.html").read_text()


@pytest.mark.usefixtures("quick")
def test_resumed_it_is_complete_until_it_is_given_more_patience(ended, photos, maekit_here, tmp_path):
    _, folder = ended
    history = (folder / "metrics.jsonl").read_text()
    again = maekit_here(*WORDS, *STOPS, "--data", photos, "--val", photos, "--out", folder, "--resume", "--json")
    assert json.loads(again.stdout.splitlines()[-1])["steps"] == 9
    assert "the run is complete: it is at step 9 of 20, as RankMe was at its best" in again.stderr
    assert (folder / "metrics.jsonl").read_text() == history

    onward = maekit_here(*WORDS, "--data", photos, "--val", photos, "--out", folder, "--resume", "--json")
    answer = json.loads(onward.stdout.splitlines()[-1])
    assert (answer["steps"], answer.get("ended_early")) == (20, None)
    whole = maekit_here(*WORDS, "--data", photos, "--val", photos, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    ours, theirs = (load_file(run / "model.safetensors") for run in (folder, tmp_path / "whole"))
    assert all(ours[name].equal(theirs[name]) for name in theirs)


@pytest.mark.usefixtures("quick")
def test_the_command_it_names_lets_the_rate_fall(photos, maekit_here, tmp_path):
    done = maekit_here(*WORDS, *STOPS, "--data", photos, "--val", photos, "--out", tmp_path / "run", "--json")
    said = json.loads(done.stdout.splitlines()[-1])["ended_early"]
    assert "the rate is still 100% of its peak" in said
    words = shlex.split(re.search(r"maekit (pretrain .*)", said)[1])
    cooled = maekit_here(*words, "--json")
    assert cooled.returncode == 0, cooled.stderr
    assert "had rate" not in cooled.stderr  # which is said where rates before the branch are others
    rates = [record["lr"] for record in metrics.read(tmp_path / "run-cooled" / "metrics.jsonl")]
    assert rates[:10] == [1e-3] * 10
    assert len(rates) == 12  # a fifth, rounded up
    assert rates[-1] < 0.6e-3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--validation.stop-after", "2"), "of which images? give --val"),
        (("--val-split", "0.5", "--validation.stop-by", "loss"), "ends nothing without --validation.stop-after"),
        (("--val-split", "0.5", *STOPS, "--validation.stop-by", "lidar"), "add --validation.lidar-views"),
        (
            ("--val-split", "0.5", *STOPS, "--validation.stop-by", "alpha"),
            "6 held-out images are too few for alpha-ReQ",
        ),
        (("--val", "digits:test", *STOPS, "--validation.stop-by", "knn"), "kNN needs labels of the same classes"),
        (("--val-split", "0.5", "--patience", "3"), "--validation.stop-after"),
    ],
)
def test_what_cannot_end_it_is_said(photos, maekit_here, tmp_path, words, said):
    done = maekit_here(*WORDS, "--data", photos, "--out", tmp_path / "run", *words)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("quick")
def test_lidar_is_measured_by_option_and_ends_a_run_too(photos, maekit_here, tmp_path):
    words = (*STOPS, "--validation.stop-by", "lidar", "--validation.lidar-views", "3", "--steps", "6")
    done = maekit_here(*WORDS, "--data", photos, "--val", photos, "--out", tmp_path / "run", *words)
    assert done.returncode == 0, done.stderr
    judged = [record for record in metrics.read(tmp_path / "run" / "metrics.jsonl") if "val_loss" in record]
    assert all(1 <= record["val_lidar"] <= 12 for record in judged)
