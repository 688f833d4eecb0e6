"""`maekit compare`: runs side by side on one page."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import maekit
from maekit import presets
from maekit.config.files import to_dict
from maekit.errors import RunError, UsageError
from maekit.report import moments


def make_run(folder: Path, *, steps: int = 20, batch_size: int = 64, **record: Any) -> Path:
    config = to_dict(presets.PRETRAIN["digits"]())
    config["schedule"]["batch_size"] = batch_size
    config["run"]["out"] = str(folder)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"config": config, "versions": {"torch": "2.11.0"}, **record}))
    lines = [
        {"step": n, "loss": 1 / n, "lr": 0.1, "images_per_second": 64, "val_knn": n / 100} for n in range(1, steps + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_what_differs_comes_first_and_nothing_else_does(tmp_path: Path):
    runs = make_run(tmp_path / "a"), make_run(tmp_path / "b", batch_size=128, versions={"torch": "2.12.0"}, steps=10)
    said = maekit.compare(runs, out=tmp_path / "c.html")
    assert said.differences == {
        "schedule.batch_size": {"a": 64, "b": 128},
        "versions.torch": {"a": "2.11.0", "b": "2.12.0"},
    }
    assert said.runs["a"] == {"steps": 20, "images": 1280, "seconds": 20.0, "loss": 0.05, "val_knn": 0.2}
    assert said.runs["b"]["images"] == 1280
    page = (tmp_path / "c.html").read_text()
    headings = ["What differs", "How they ended", "In words", "Curves"]
    places = [page.index(f"<h2>{heading}</h2>") for heading in headings]
    assert places == sorted(places)
    assert page.count("<svg") == 3  # loss, kNN, rate
    assert "What they paint" not in page
    assert "<script" not in page


def test_what_they_paint_stands_side_by_side(tmp_path: Path):
    runs = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    for run in runs:
        image = [np.zeros((8, 8), np.uint8)]
        moments.write(run, {"masked": image, "step-0": image, "step-20": image, "original": image})
    maekit.compare(runs, out=tmp_path / "c.html")
    page = (tmp_path / "c.html").read_text()
    assert [f"{name}: {what}" in page for name in "ab" for what in ("masked", "step 20", "step 0")] == [
        True,
        True,
        False,
    ] * 2
    assert "Nothing: options, images and versions are the same." in page


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path: Path):
    runs = make_run(tmp_path / "x" / "run"), make_run(tmp_path / "y" / "run")
    assert [*maekit.compare(runs, out=tmp_path / "c.html").runs] == [str(run) for run in runs]


def test_names_are_no_markup(tmp_path: Path):
    evil = "<script>alert(1)<"
    runs = make_run(tmp_path / evil, versions={"torch": evil}), make_run(tmp_path / "b")
    maekit.compare(runs, out=tmp_path / "c.html")
    assert "<script" not in (tmp_path / "c.html").read_text()


def test_a_run_that_has_logged_nothing_is_compared_too(tmp_path: Path):
    said = maekit.compare(
        [make_run(tmp_path / "a", steps=0), make_run(tmp_path / "b", steps=0)], out=tmp_path / "c.html"
    )
    assert said.runs["a"]["steps"] == 0


def test_mistakes_write_nothing(tmp_path: Path):
    run = make_run(tmp_path / "a")
    for runs, out, kind in (
        ([run], "c.html", UsageError),
        ([run, run], "c.html", UsageError),
        ([run, run], "c.png", UsageError),
        ([run, tmp_path], "c.html", RunError),
        ([run] * 13, "c.html", UsageError),
    ):
        with pytest.raises(kind) as caught:
            maekit.compare(runs, out=tmp_path / out)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / out).exists()


@pytest.mark.filterwarnings("error:constrained_layout")
def test_long_names_leave_room_for_the_curves(tmp_path: Path):
    runs = [make_run(tmp_path / ("a" * 90) / f"{number}{'b' * 70}") for number in range(5)]
    maekit.compare(runs, out=tmp_path / "c.html")
    assert "…" in (tmp_path / "c.html").read_text()
