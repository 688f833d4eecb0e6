"""A run folder as a page: what ran, at what cost, how it went, in words and curves, and what it painted on the way."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from maekit.engine.progress import duration
from maekit.report import figures, moments, probes
from maekit.report.history import History, Points
from maekit.report.verdict import verdict
from maekit.sections import Facts, Figure, Heading, Section, Text

_RAN = {
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
MEASURES = {
    "val_loss": "validation loss",
    "val_knn": "kNN top-1",
    "val_knn_ema": "kNN top-1 of the averaged encoder",
    "val_top1": "top-1",
    "val_top5": "top-5",
    "val_rankme": "RankMe effective rank",
    "val_alpha": "alpha-ReQ, best about 1",
    "val_lidar": "LiDAR effective rank",
}
_SPEED = {
    "images_per_second": ("images per second", "Images per second at each logged step."),
    "waiting": ("share of the time", "Share of the time that was spent waiting for images."),
    "mfu": ("MFU", "Share of what the device's matrix products could do (MFU)."),
}


def run_sections(run: Path, more: Sequence[Section] = ()) -> list[Section]:
    """What a run folder's config.json, metrics.jsonl and pictures tell. more: what stands before the versions.

    Raises RunError for a folder that holds no run, or a damaged config.
    """
    history = History.of(run)
    said = verdict(history)
    opening: list[Section] = [Heading("In words"), Text("\n\n".join(said))] if said else []
    sections = [*opening, Heading("The run"), Facts([*facts(history).items()])]
    sections += [Heading("Cost"), Facts([*costs(history).items()])] if history.steps else []
    sections += _curves(history)
    sections += [probes.part(run), *moments.sections(run, history.steps)]
    sections += more
    if versions := history.said("versions"):
        sections += [Heading("Versions"), Facts([(name, str(version)) for name, version in versions.items()])]
    return sections


def facts(history: History) -> dict[str, str]:
    """What ran, on what."""
    values = {name: history.option(path) for name, path in _RAN.items()}
    said = {name: words(value) for name, value in values.items() if value not in (None, "")}
    data = history.said("data")
    if isinstance(data.get("images"), int):
        classes = f", {data['classes']:,} classes" if isinstance(data.get("classes"), int) else ""
        said["number of images"] = f"{data['images']:,}{classes}"
    if on := history.said("hardware"):
        devices = f"{on.get('processes', 1)} × " if on.get("processes", 1) != 1 else ""
        said["hardware"] = f"{devices}{on.get('device')}, {on.get('name')}, {on.get('cores')} CPU cores"
    return said


def costs(history: History) -> dict[str, str]:
    """How far it came of what was planned, how long that took, and at what price."""
    steps, planned, batch_size = history.steps, history.computed("steps"), history.option("schedule.batch_size")
    said = {"steps done": f"{steps:,}" + (f" of {planned:,}" if planned else "")}
    if (epochs := history.last("epoch")) is not None and steps:
        said["epochs done"] = f"{epochs:.4g}" + (f" of {epochs * planned / steps:.4g}" if planned else "")
    if isinstance(batch_size, int):
        said["images seen"] = f"{steps * batch_size:,}"
        if isinstance(gflop := history.computed("gflop"), int | float):
            said["GFLOP"] = f"{gflop * steps * batch_size:,.0f}, {gflop:.3g} an image"
    if seconds := history.seconds:
        processes = history.computed("world_size") or 1
        said["time in steps"] = duration(seconds)
        said["hours × devices"] = f"{seconds * processes / 3600:.2g}"
    if (loss := history.last("loss")) is not None:
        said["last logged loss"] = f"{loss:.4g}"
    for name, key in (("waiting for images", "waiting"), ("MFU", "mfu")):
        if values := history.points(key)[1]:
            said[name] = f"{fmean(values):.0%} of the time" if key == "waiting" else f"{fmean(values):.0%}"
    if peak := max(history.points("memory_gb")[1], default=0.0):
        said["device memory"] = f"{peak:.3g} GB"
    return said


def _curves(history: History) -> list[Section]:
    losses = {name: history.points(key) for name, key in (("training", "loss"), ("validation", "val_loss"))}
    losses = {name: points for name, points in losses.items() if points[0]}
    if not losses:
        return [Text("No step has been logged yet.")]
    window = max(1, max(len(steps) for steps, _ in losses.values()) // 50)
    strong = f" Strong line: moving mean of {window} logged steps." if window > 1 else ""
    until = history.steps
    loss = figures.curve(losses, ylabel="loss", smooth=window, cut_start=True, log=True, until=until)
    sections: list[Section] = [Heading("Curves"), Figure(loss, f"Loss, {' and '.join(losses)}.{strong}")]
    sections += _validation(history)
    rate = history.points("lr")
    if rate[0]:
        drawn = figures.curve({"learning rate": rate}, ylabel="learning rate", until=until)
        sections.append(Figure(drawn, "Learning rate at each logged step."))
    for key, (label, caption) in _SPEED.items():
        points = history.points(key)
        if any(points[1]):
            drawn = figures.curve({label: points}, ylabel=label, smooth=window, until=until)
            sections.append(Figure(drawn, caption + strong))
    return sections


def _validation(history: History) -> list[Section]:
    """One figure of all accuracies, one for each other measure; the loss stands beside training's."""
    until = history.steps
    curves = {key: points for key in history.measures if key != "val_loss" and (points := _with_start(history, key))[0]}
    accuracies = {measure(key): curves.pop(key) for key in list(curves) if key.startswith(_ACCURACIES)}
    sections: list[Section] = []
    begun = " At step 0: before training." if history.untrained else ""
    if accuracies:
        drawn = figures.curve(accuracies, ylabel="accuracy", until=until)
        weights = " Either encoder is taken by --weights: RUN, and RUN/model_ema.safetensors of the average."
        weights = weights if "val_knn_ema" in history.measures else ""
        sections.append(Figure(drawn, f"Accuracy on held-out images: {', '.join(accuracies)}.{begun}{weights}"))
    for key, points in curves.items():
        drawn = figures.curve({measure(key): points}, ylabel=measure(key), until=until)
        sections.append(Figure(drawn, f"On held-out images: {measure(key)}.{begun}"))
    return sections


def _with_start(history: History, key: str) -> Points:
    """The points of a measure, at step 0 that of the model before training where it is known."""
    steps, values = history.points(key)
    before = history.untrained.get(key)
    return ([0, *steps], [before, *values]) if isinstance(before, int | float) and steps else (steps, values)


def measure(key: str) -> str:
    """A measure's name as a person reads it."""
    return MEASURES.get(key, key.removeprefix("val_").replace("_", " "))


def words(value: Any) -> str:
    """A value of a config as a person reads it; nothing where there is none."""
    if isinstance(value, list):
        return " × ".join(map(words, value))
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
