"""What a probe says of a run's weights stands in its report, and nowhere else."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from maekit import presets
from maekit.config.files import to_dict
from maekit.report import page, probes
from maekit.report.run import run_sections
from maekit.sections import Text

SAID: dict[str, Any] = {
    "data": "photos/<train>", "val": "photos/val", "per_class": None, "train_images": 1200, "val_images": 300,
    "rows": [
        {"kind": "knn", "features": "pooled", "blocks": 1, "top1": 0.25, "k": 10},
        {"kind": "knn", "features": "pooled", "blocks": 1, "top1": 0.5, "k": 20},
        {"kind": "linear", "features": "class", "blocks": 4, "top1": 0.625, "probe": "paper"},
    ],
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder of 40 steps with a report."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"config": to_dict(presets.PRETRAIN["digits"]())}))
    (folder / "metrics.jsonl").write_text('{"step": 40, "loss": 1.0}\n')
    page.write(folder / "report.html", "a run", [*run_sections(folder), Text("The end.")])
    return folder


def rows(report: Path) -> list[str]:
    """The cells of the table of probes, a line each."""
    part = report.read_text().partition('<section id="probes">')[2].partition("</section>")[0]
    found = re.findall(r"<tr>(.*?)</tr>", part.partition("<tbody>")[2], re.S)
    return ["|".join(re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)) for row in found]


def test_a_report_without_a_probe_says_nothing_of_one(run: Path):
    assert "Judged by probes" not in (run / "report.html").read_text()


def test_it_takes_its_place_in_the_report_and_leaves_the_rest(run: Path):
    before = (run / "report.html").read_text()
    probes.keep(run / "model.safetensors", SAID)
    after = (run / "report.html").read_text()
    assert rows(run / "report.html") == [
        "knn, k = 20|50.00%|pooled|photos/&lt;train&gt; (1,200)|photos/val (300)|40",
        "linear, paper|62.50%|class, last 4 blocks|photos/&lt;train&gt; (1,200)|photos/val (300)|40",
    ]
    start, end = after.index('<section id="probes">'), after.index("</section>")
    empty = '<section id="probes">\n</section>'
    assert after[:start] + empty + after[end + len("</section>") :] == before


def test_the_newer_of_two_alike_stands_and_the_file_has_both(run: Path):
    probes.keep(run / "model.safetensors", SAID)
    probes.keep(run / "model.safetensors", SAID | {"per_class": 5, "train_images": 50})
    again = [{**SAID["rows"][1], "top1": 0.75}]
    probes.keep(run / "model.safetensors", SAID | {"rows": again})
    shown = [line.split("|")[:4] for line in rows(run / "report.html")]
    assert [(kind, top1) for kind, top1, *_ in shown if kind.startswith("knn")] == [
        ("knn, k = 20", "50.00%"),
        ("knn, k = 20", "75.00%"),
    ]
    assert [line[3] for line in shown][1:3] == ["photos/&lt;train&gt; (50, 5 of each class)"] * 2
    assert len((run / "probes.jsonl").read_text().splitlines()) == 3


def test_a_report_that_is_made_later_has_it_too(run: Path):
    probes.keep(run / "checkpoints" / "step-40" / "model.safetensors", SAID)
    probes.keep(run / "model_ema.safetensors", SAID)
    page.write(run / "again.html", "a run", run_sections(run))
    lines = rows(run / "again.html")
    assert len(lines) == 4  # what is judged of one file is not what is judged of another
    assert {line.split("|")[6] for line in lines} == {"checkpoints/step-40/model.safetensors", "model_ema.safetensors"}


def test_weights_outside_a_run_leave_nothing(tmp_path: Path):
    probes.keep(tmp_path / "some" / "weights.safetensors", SAID)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_costs_a_line_and_no_judgement(run: Path, caplog: pytest.LogCaptureFixture):
    (run / "probes.jsonl").mkdir()
    probes.keep(run / "model.safetensors", SAID)
    assert f"{run}: what was found cannot be kept there (Is a directory)" in caplog.text


def test_a_report_of_an_older_version_stays_as_it_is(run: Path):
    (run / "report.html").write_text("<p>without such a part</p>")
    probes.keep(run / "model.safetensors", SAID)
    assert (run / "report.html").read_text() == "<p>without such a part</p>"


def test_a_line_that_is_torn_or_no_judgement_is_passed_over(run: Path):
    probes.keep(run / "model.safetensors", SAID)
    with (run / "probes.jsonl").open("a") as file:
        file.write('{}\n{"rows": [{"top1": 1}]}\n{"weights": "model.saf')
    assert len(probes.part(run).sections) == 2
