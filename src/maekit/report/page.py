"""A report as one HTML file that needs nothing else: no script, no request, readable on a phone and in the dark."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from maekit import storage
from maekit.engine import metrics
from maekit.engine.metrics import Record
from maekit.engine.progress import duration
from maekit.errors import RunError
from maekit.report import figures
from maekit.sections import Facts, Figure, Heading, Picture, Section, Table, Text, html

__all__ = ["Facts", "Figure", "Heading", "Picture", "Section", "Table", "Text", "render", "run_sections", "write"]


def write(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write the page; the file is either complete or as it was before. Raises StorageError."""
    storage.write_text(path, render(title, sections))


def render(title: str, sections: Sequence[Section]) -> str:
    """The page as text. All words are escaped; only a Figure's svg is trusted."""
    body = "\n".join(map(html, sections))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{_CSS}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{body}
</main>
</body>
</html>
"""


_CSS = """
:root {
  color-scheme: light dark;
  --page: #fff; --ink: #1a1a1a; --quiet: #5a5a5a; --rule: #dcdcdc; --panel: #f6f7f8;
}
@media (prefers-color-scheme: dark) {
  :root { --page: #16181b; --ink: #e8e8e8; --quiet: #a9adb3; --rule: #3a3e44; --panel: #1f2226; }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 47rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1.25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
h1 + h2 { margin-top: 0; padding-top: 0; border: 0; }
figure { margin: 1.25rem 0 2rem; }
figcaption { margin-top: .5rem; color: var(--quiet); font-size: .875rem; }
.paper { display: block; background: #fff; border-radius: 6px; max-width: 100%; height: auto; }
div.paper { padding: .5rem; }
.paper svg { display: block; width: 100%; height: auto; }
.paper svg text { font-family: inherit !important; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .75rem; border-bottom: 1px solid var(--rule); text-align: right; }
th:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--quiet); font-size: .875rem; font-weight: 600; }
tbody th { font-weight: 400; }
dl {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: .75rem 1.5rem;
  margin: 1.25rem 0; padding: 1rem 1.25rem; background: var(--panel); border-radius: 6px;
}
dt { color: var(--quiet); font-size: .8rem; }
dd { margin: 0; overflow-wrap: anywhere; }
@media print { .paper, figure { break-inside: avoid; } }
"""

_FACTS = {
    "preset": "name",
    "encoder": "model.encoder",
    "started from": "weights",
    "branched from": "run.branch",
    "image size": "model.image_size",
    "patch size": "model.patch_size",
    "width": "model.width",
    "depth": "model.depth",
    "channels": "model.channels",
    "decoder": "model.decoder.kind",
    "mask": "mask.kind",
    "hidden share": "mask.ratio",
    "target": "target.kind",
    "loss": "target.loss",
    "images": "data.source",
    "held-out images": "validation.source",
    "batch size": "schedule.batch_size",
    "learning rate": "optimizer.lr",
    "learning rate per 256": "optimizer.base_lr",
    "seed": "run.seed",
    "precision": "run.precision",
}
_ACCURACIES = ("val_knn", "val_top")
_MEASURES = {
    "val_knn": "kNN top-1",
    "val_knn_ema": "kNN top-1 of the averaged encoder",
    "val_top1": "top-1",
    "val_top5": "top-5",
    "val_rankme": "RankMe effective rank",
}


def run_sections(run: Path) -> list[Section]:
    """What a run folder's config.json and metrics.jsonl tell: facts, loss, validation, learning rate, throughput.

    Raises RunError for a folder that holds no run, or a damaged config.
    """
    ran, records = _config(run / "config.json"), metrics.read(run / "metrics.jsonl")
    sections: list[Section] = [Heading("The run"), Facts(tuple(_facts(ran, records).items()))]
    losses = {name: _points(records, key) for name, key in (("training", "loss"), ("validation", "val_loss"))}
    losses = {name: points for name, points in losses.items() if points[0]}
    if not losses:
        return [*sections, Text("No step has been logged yet.")]
    window = max(1, max(len(steps) for steps, _ in losses.values()) // 50)
    strong = f" Strong line: moving mean of {window} logged steps." if window > 1 else ""
    loss = figures.curve(losses, xlabel="step", ylabel="loss", smooth=window, cut_start=True)
    sections.append(Figure(loss, f"Loss, {' and '.join(losses)}.{strong}"))
    sections += _validation(records)
    for key, label, smooth in (("lr", "learning rate", 1), ("images_per_second", "images per second", window)):
        points = _points(records, key)
        if points[0]:
            drawn = figures.curve({label: points}, xlabel="step", ylabel=label, smooth=smooth)
            sections.append(Figure(drawn, f"{label.capitalize()} at each logged step.{strong if smooth > 1 else ''}"))
    return sections


def _validation(records: Sequence[Record]) -> list[Section]:
    """One figure of all accuracies, one for each other measure; the loss stands beside training's."""
    measures = dict.fromkeys(
        key for record in records for key in record if key.startswith("val_") and key != "val_loss"
    )
    curves = {key: points for key in measures if (points := _points(records, key))[0]}
    accuracies = {_measure(key): curves.pop(key) for key in list(curves) if key.startswith(_ACCURACIES)}
    sections: list[Section] = []
    if accuracies:
        drawn = figures.curve(accuracies, xlabel="step", ylabel="accuracy")
        weights = " Either encoder is taken by --weights: RUN, and RUN/model_ema.safetensors of the average."
        weights = weights if "val_knn_ema" in measures else ""
        sections.append(Figure(drawn, f"Accuracy on held-out images: {', '.join(accuracies)}.{weights}"))
    for key, points in curves.items():
        drawn = figures.curve({_measure(key): points}, xlabel="step", ylabel=_measure(key))
        sections.append(Figure(drawn, f"On held-out images: {_measure(key)}."))
    return sections


def _measure(key: str) -> str:
    return _MEASURES.get(key, key.removeprefix("val_").replace("_", " "))


def _facts(ran: Mapping[str, Any], records: Sequence[Record]) -> dict[str, str]:
    values = {name: _option(ran["config"], path) for name, path in _FACTS.items()}
    facts = {name: _words(value) for name, value in values.items() if value not in (None, "")}
    facts |= _progress(ran, records) | _hardware(ran)
    versions = ran.get("versions")
    if isinstance(versions, dict):
        facts |= {name: str(version) for name, version in versions.items()}
    return facts


def _progress(ran: Mapping[str, Any], records: Sequence[Record]) -> dict[str, str]:
    """How far the run came of what was planned, and how long its steps took."""
    facts = {}
    steps, epochs = (_points(records, key)[1] for key in ("step", "epoch"))
    planned = _option(ran, "computed.steps")
    if steps:
        facts["steps done"] = f"{steps[-1]:,.0f}" + (f" of {planned:,}" if planned else "")
    if epochs:
        whole = f" of {epochs[-1] * planned / steps[-1]:.4g}" if planned else ""
        facts["epochs done"] = f"{epochs[-1]:.4g}{whole}"
    if _points(records, "loss")[1]:
        facts["last logged loss"] = f"{_points(records, 'loss')[1][-1]:.4g}"
    seconds = _seconds(records, _option(ran, "config.schedule.batch_size"))
    if seconds:
        facts["time in steps"] = duration(seconds)
    return facts


def _seconds(records: Sequence[Record], batch_size: Any) -> float:
    """Of all logged steps together, by their rates; validation and saving are not in it. 0 where they do not tell."""
    steps, rates = _points(records, "images_per_second")
    if not isinstance(batch_size, int) or 0 in rates:
        return 0.0
    lengths = (step - before for step, before in zip(steps, [0, *steps], strict=False))
    return sum(length * batch_size / rate for length, rate in zip(lengths, rates, strict=True))


def _hardware(ran: Mapping[str, Any]) -> dict[str, str]:
    """What the run ran on, where its config says so."""
    said = ran.get("hardware")
    if not isinstance(said, dict):
        return {}
    devices = f"{said.get('processes', 1)} × " if said.get("processes", 1) != 1 else ""
    return {"hardware": f"{devices}{said.get('device')}, {said.get('name')}, {said.get('cores')} CPU cores"}


def _option(config: Any, path: str) -> Any:
    for name in path.split("."):
        config = config.get(name) if isinstance(config, dict) else None
    return config


def _words(value: Any) -> str:
    if isinstance(value, list):
        return " × ".join(map(_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _points(records: Sequence[Record], key: str) -> tuple[list[float], list[float]]:
    """(steps, values) of the records that hold a number under this key."""
    held = [record for record in records if "step" in record and isinstance(record.get(key), int | float)]
    return [record["step"] for record in held], [record[key] for record in held]


def _config(path: Path) -> dict[str, Any]:
    try:
        ran = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}); name a folder that a run has written") from None
    except ValueError as error:
        raise RunError(f"{path}: is damaged ({error}); a report needs the config that ran") from None
    if not isinstance(ran, dict) or not isinstance(ran.get("config"), dict):
        raise RunError(f"{path}: holds no 'config'; a report needs the config that ran")
    return ran
