"""What a report says in words follows from the history's numbers, or is not said."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maekit import presets
from maekit.config.files import to_dict
from maekit.report.history import History
from maekit.report.verdict import verdict

NOISE = np.random.default_rng(0).normal(size=20) * 0.002


def told(
    folder: Path,
    values: dict[str, Any],
    untrained: dict[str, Any] | None = None,
    weights: str = "",
    stop_after: int | None = None,
    planned: int = 1000,
) -> str:
    """The verdict on a run of so many steps, after the first 1,000, that was validated every 50."""
    config = to_dict(presets.PRETRAIN["digits"]()) | {"weights": weights}
    config["validation"] |= {"stop_after": stop_after}
    (folder / "config.json").write_text(json.dumps({"config": config, "computed": {"steps": planned}}))
    lines = [
        {"step": 50 * (n + 1), "loss": 1.0, **{key: float(column[n]) for key, column in values.items()}}
        for n in range(20)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if untrained is not None:
        (folder / "untrained.json").write_text(json.dumps(untrained))
    return "\n".join(verdict(History.of(folder)))


def test_a_run_that_still_improves(tmp_path: Path):
    said = told(tmp_path, {"val_knn": np.linspace(0.5, 0.7, 20) + NOISE})
    assert said.startswith("Still improving: the last quarter of the steps gained 0.05")
    assert "kNN" in said


def test_a_run_that_has_come_to_rest(tmp_path: Path):
    assert told(tmp_path, {"val_knn": 0.7 + NOISE}).startswith("Level: the last quarter of the steps changed kNN by ")


@pytest.mark.parametrize(
    ("name", "values"), [("val_knn", np.linspace(0.7, 0.5, 20)), ("val_loss", np.linspace(0.5, 0.7, 20))]
)
def test_a_run_that_gets_worse(tmp_path: Path, name: str, values: Any):
    assert told(tmp_path, {name: values + NOISE}).startswith("Getting worse: the last quarter of the steps ")


def test_a_falling_loss_is_an_improvement(tmp_path: Path):
    said = told(tmp_path, {"val_loss": np.linspace(0.7, 0.5, 20) + NOISE})
    assert said.startswith("Still improving: the last quarter of the steps took off 0.05")


def test_without_labels_it_is_judged_by_what_needs_none(tmp_path: Path):
    said = told(tmp_path, {"val_loss": 0.5 + NOISE, "val_rankme": np.linspace(10, 30, 20) + NOISE}).splitlines()
    assert said[0].startswith("Still improving: the last quarter of the steps gained 5.3 RankMe (")
    assert said[1].startswith("Level: the last quarter of the steps changed validation loss by ")
    labelled = told(tmp_path, {"val_knn": 0.7 + NOISE, "val_rankme": np.linspace(10, 30, 20) + NOISE})
    assert "RankMe" not in labelled


def test_a_run_that_ended_early_says_why(tmp_path: Path):
    ranks = np.concatenate([np.linspace(10, 20, 15), np.full(5, 19.0)])
    words = "Ended at step 1,000 of 4,000: RankMe was at its best at step 750, 20, and not in 5 validations since."
    assert told(tmp_path, {"val_rankme": ranks}, stop_after=5, planned=4000).startswith(words)
    assert "Ended" not in told(tmp_path, {"val_rankme": ranks}, stop_after=6, planned=4000)
    assert "Ended" not in told(tmp_path, {"val_rankme": ranks}, planned=4000)


def test_a_run_that_is_not_done_says_how_far_it_is(tmp_path: Path):
    ranks = {"val_rankme": np.linspace(10, 20, 20)}
    words = "At step 1,000 of 4,000, so what follows is not the last word.\nStill improving"
    assert told(tmp_path, ranks, planned=4000).startswith(words)
    assert "At step" not in told(tmp_path, ranks)


def test_too_few_values_are_no_verdict(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"config": to_dict(presets.PRETRAIN["digits"]())}))
    lines = [{"step": n, "loss": 1 / n} for n in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert verdict(History.of(tmp_path)) == ["Too few values of training loss to tell whether it still improves."]


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (0.41, "Better than its untrained self: kNN 0.7, before the first step 0.41"),
        (0.69, "No better than its untrained self: kNN 0.7, before the first step 0.69"),
        (0.9, "Worse than its untrained self: kNN 0.7, before the first step 0.9"),
    ],
)
def test_it_is_compared_with_its_untrained_self(tmp_path: Path, before: float, words: str):
    assert words in told(tmp_path, {"val_knn": [0.7] * 20}, {"images": 400, "val_knn": before})


def test_of_few_images_a_difference_may_be_chance(tmp_path: Path):
    values = {"val_knn": [0.7] * 20}
    assert "No better than" in told(tmp_path, values, {"images": 20, "val_knn": 0.6})
    assert "Better than" in told(tmp_path, values, {"images": 2000, "val_knn": 0.6})


def test_weights_it_began_with_are_not_called_untrained(tmp_path: Path):
    said = told(tmp_path, {"val_knn": [0.7] * 20}, {"images": 400, "val_knn": 0.7}, weights="runs/before")
    assert "No better than the weights it began with" in said


@pytest.mark.parametrize("untrained", [None, {}, {"val_knn": 0.6}, {"images": 0, "val_knn": 0.6}, {"images": 10}])
def test_what_was_not_measured_is_not_said(tmp_path: Path, untrained: dict[str, Any] | None):
    assert "untrained" not in told(tmp_path, {"val_knn": [0.7] * 20}, untrained)


def test_a_better_step_is_named(tmp_path: Path):
    values = np.full(20, 0.6)
    values[4] = 0.8
    assert "It was better at step 250: kNN 0.8." in told(tmp_path, {"val_knn": values}, {"images": 400, "val_knn": 0.3})


def test_troubles_are_said(tmp_path: Path):
    losses = np.concatenate([np.linspace(1, 0.5, 10), np.linspace(0.5, 0.9, 10)])
    values = {"val_knn": [0.7] * 20, "val_loss": losses, "val_rankme": [1.2] * 20, "waiting": [0.5] * 20}
    said = told(tmp_path, values, {"images": 400, "val_knn": 0.3})
    assert "The validation loss was lowest at step 500, 0.5, and is 0.9 now." in said
    assert "RankMe is 1.20" in said
    assert "It waited for images 50% of the time" in said
    calm = told(tmp_path, {"val_knn": [0.7] * 20, "val_loss": [0.5] * 20, "waiting": [0.1] * 20})
    assert not [word for word in ("lowest", "RankMe", "waited") if word in calm]
