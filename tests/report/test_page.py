import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maekit import presets
from maekit.config.files import to_dict
from maekit.errors import RunError, StorageError
from maekit.report import figures
from maekit.report.page import render, write
from maekit.report.run import run_sections
from maekit.sections import Facts, Figure, Heading, Picture, Section, Strips, Table, Text

FIGURE = Figure(figures.curve({"loss": ([1, 2, 3], [3, 2, 1])}, xlabel="step", ylabel="loss"), "The loss falls.")
PICTURE = Picture(Image.fromarray(np.zeros((4, 6), np.uint8)), "Four rows of black.")
SECTIONS: list[Section] = [
    Heading("Results"),
    Text("One paragraph.\n\nAnother."),
    Table(["features", "kNN"], [["pretrained", "0.86"], ["untrained", "0.41"]], "360 images"),
    FIGURE,
    PICTURE,
    Facts([("seed", "0")]),
    Strips([("step 5", b"a picture's bytes")], "Painted."),
]
VOID = {"meta", "img", "br", "link", "input"}


class Reader(HTMLParser):
    """Keeps the tags, their attributes and the words; fails on tags that do not close in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(data.strip())

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def test_a_page_holds_every_section_as_its_own_kind_of_element():
    page = Reader(render("A run", SECTIONS))
    assert {"A run", "Results", "One paragraph.", "Another.", "pretrained", "0.86", "360 images", "seed"} <= set(
        page.words
    )
    assert {"The loss falls.", "Four rows of black."} <= set(page.words)
    counts = {tag: page.count(tag) for tag in ("h1", "h2", "p", "table", "svg", "img", "dl")}
    assert counts == {"h1": 1, "h2": 1, "p": 2, "table": 1, "svg": 1, "img": 2, "dl": 1}


def test_a_page_asks_nothing_of_the_network_and_runs_nothing():
    page = Reader(render("A run", SECTIONS))
    assert page.count("script") == page.count("link") == 0
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name)
            assert target is None or target.startswith(("data:image/png;base64,", "data:image/jpeg;base64,", "#")), (
                tag,
                target,
            )


def test_pictures_and_figures_have_words_for_those_who_cannot_see_them():
    page = Reader(render("A run", SECTIONS))
    assert [attributes["alt"] for tag, attributes in page.tags if tag == "img"] == ["Four rows of black.", "step 5"]
    assert ("img", "The loss falls.") in [(a.get("role"), a.get("aria-label")) for _, a in page.tags]


def test_no_word_is_taken_for_markup():
    evil = '<script>alert("1")</script>&amp;\' onload="x'
    sections = [
        Heading(evil),
        Text(evil),
        Table([evil], [[evil]], evil),
        Figure("<svg></svg>", evil),
        Picture(PICTURE.image, evil),
        Facts([(evil, evil)]),
        Strips([(evil, b"")], evil),
    ]
    page = Reader(render(evil, sections))
    assert page.count("script") == 0
    assert not any("onload" in attributes for _, attributes in page.tags)
    assert page.words.count(evil) == 13


def test_writing_replaces_the_page_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "report.html"
    write(path, "First", SECTIONS)
    assert "First" in Reader(path.read_text(encoding="utf-8")).words

    def disk_is_full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_is_full)
    with pytest.raises(StorageError, match="No space left"):
        write(path, "Second", SECTIONS)
    assert "First" in Reader(path.read_text(encoding="utf-8")).words
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def step(number: int, **more: Any) -> dict[str, Any]:
    return {"step": number, "epoch": number / 10, "loss": 1 / number, "lr": 1e-3, "images_per_second": 900.0, **more}


def make_run(folder: Path, lines: list[dict[str, Any]], torn: str = "") -> Path:
    record = {"config": to_dict(presets.PRETRAIN["digits"]()), "versions": {"torch": "2.11.0"}}
    (folder / "config.json").write_text(json.dumps(record))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + torn)
    return folder


def captions(sections: list[Section]) -> str:
    return "\n".join(section.caption for section in sections if isinstance(section, Figure))


def facts(sections: list[Section]) -> dict[str, str]:
    return {name: value for section in sections if isinstance(section, Facts) for name, value in section.values}


def test_a_run_is_told_by_facts_loss_learning_rate_and_throughput(tmp_path: Path):
    sections = run_sections(make_run(tmp_path, [step(number) for number in range(1, 21)]))
    told = facts(sections)
    assert told["preset"] == "digits"
    assert told["steps done"] == "20"
    assert told["last logged loss"] == "0.05"
    assert told["torch"] == "2.11.0"
    assert captions(sections).splitlines() == [
        "Loss, training.",
        "Learning rate at each logged step.",
        "Images per second at each logged step.",
    ]
    Reader(render("A run", sections))


def test_a_run_says_how_far_it_came_how_long_it_took_and_on_what(tmp_path: Path):
    run = make_run(tmp_path, [step(1), step(4, images_per_second=64.0), step(30, images_per_second=128.0)])
    written = json.loads((run / "config.json").read_text())
    written["computed"] = {"steps": 120, "gflop": 0.5, "world_size": 2}
    written["config"]["schedule"] |= {"batch_size": 64, "epochs": 800}
    written["hardware"] = {"device": "cpu", "name": "x86_64", "processes": 2, "cores": 2}
    (run / "config.json").write_text(json.dumps(written))
    told = facts(run_sections(run))
    assert told["steps done"] == "30 of 120"
    assert told["epochs done"] == "3 of 12"
    assert "800" not in told.values()
    assert told["images seen"] == "1,920"
    assert told["time in steps"] == "16.1 s"  # 1 step at 900, 3 at 64 and 26 at 128 images a second
    assert told["hours × devices"] == "0.0089"
    assert told["GFLOP"] == "960, 0.5 an image"
    assert told["hardware"] == "2 × cpu, x86_64, 2 CPU cores"


def test_waiting_and_mfu_are_told_and_drawn(tmp_path: Path):
    sections = run_sections(make_run(tmp_path, [step(n, waiting=n / 10, mfu=0.4) for n in range(1, 6)]))
    assert facts(sections)["waiting for images"] == "30% of the time"
    assert facts(sections)["MFU"] == "40%"
    assert "spent waiting for images" in captions(sections)
    assert "MFU" in captions(sections)
    assert any("waited for images 30%" in section.body for section in sections if isinstance(section, Text))


def test_loss_validation_and_rate_have_one_axis_of_steps(tmp_path: Path):
    lines = [step(n, **({"val_loss": 0.4, "val_knn": n / 100} if n % 10 == 0 else {})) for n in range(1, 41)]
    drawn = [section.svg for section in run_sections(make_run(tmp_path, lines)) if isinstance(section, Figure)]
    assert len(drawn) == 4
    axes = [re.findall(r"<!-- (\d+) -->|>(\d+)</text>", svg) for svg in drawn[:3]]
    ends = {max(int(a or b) for a, b in found) for found in axes}
    assert ends == {40}


def test_the_model_before_training_stands_at_step_0(tmp_path: Path):
    run = make_run(tmp_path, [step(n, val_knn=n / 100) for n in range(1, 41)])
    (run / "untrained.json").write_text('{"images": 400, "val_knn": 0.123456}')
    (accuracy,) = (s for s in run_sections(run) if isinstance(s, Figure) and s.caption.startswith("Accuracy"))
    assert "step 0  kNN top-1 0.1235" in accuracy.svg
    assert "At step 0: before training." in accuracy.caption


def test_validation_is_drawn_where_there_is_any(tmp_path: Path):
    lines = [step(number) for number in range(1, 21)]
    lines += [{"step": 10, "val_loss": 0.4, "val_knn": 0.5, "val_top1": 0.6, "val_rankme": 30.5}]
    told = captions(run_sections(make_run(tmp_path, lines)))
    assert "Loss, training and validation." in told
    assert "Accuracy on held-out images: kNN top-1, top-1." in told
    assert "On held-out images: RankMe effective rank." in told


def test_a_last_line_torn_by_a_kill_is_left_out(tmp_path: Path):
    lines = [step(number) for number in range(1, 4)]
    sections = run_sections(make_run(tmp_path, lines, torn='{"step": 4, "lo'))
    assert facts(sections)["steps done"] == "3"


@pytest.mark.parametrize("lines", [[], [{"step": 1, "note": "started"}]])
def test_a_run_without_a_step_says_so(tmp_path: Path, lines: list[dict[str, Any]]):
    assert Text("No step has been logged yet.") in run_sections(make_run(tmp_path, lines))


def test_a_loss_that_is_missing_or_not_finite_stops_nothing(tmp_path: Path):
    lines = [step(1), step(2, loss=None), step(3, loss=float("nan")), step(4)]
    assert facts(run_sections(make_run(tmp_path, lines)))["steps done"] == "4"


@pytest.mark.parametrize("content", [None, "{", "[]", '{"versions": {}}'])
def test_a_folder_that_holds_no_run_is_refused(tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError, match=r"config\.json") as caught:
        run_sections(tmp_path)
    assert "\n" not in str(caught.value)
