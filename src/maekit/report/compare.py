"""Several runs side by side: what differs between their configs, how they ended, their curves, what they paint."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maekit.config.files import by_path
from maekit.config.verbs import CompareOptions
from maekit.engine.progress import duration
from maekit.errors import UsageError
from maekit.report import figures, moments, page
from maekit.report.history import History
from maekit.report.run import measure
from maekit.report.verdict import verdict
from maekit.results import Compared
from maekit.sections import Figure, Heading, Section, Strips, Table, Text
from maekit.storage import check_writable

_NO_DIFFERENCE = ("run.out", "run.resume", "run.overwrite")
_MOST = 12  # runs, whose lines can be told apart
_LONGEST = 32  # letters of a value in the table
_ABSENT = "–"

Runs = Mapping[str, History]


def compare(options: CompareOptions) -> Compared:
    """`maekit compare`. Raises UsageError for too few or many runs, RunError for a folder that holds none."""
    if not 2 <= len(options.runs) <= _MOST:
        raise UsageError(f"compare: takes 2 to {_MOST} run folders, not {len(options.runs)}")
    out = Path(options.out)
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--out {out}: is a page, so its name ends in .html")
    check_writable(out)
    runs = _named([History.of(Path(folder)) for folder in options.runs])
    differ, ends = _differences(runs), {name: _end(history) for name, history in runs.items()}
    page.write(out, f"{len(runs)} runs: {', '.join(runs)}", sections(runs, differ, ends))
    said: list[Section] = [Text(f"{out}: {len(runs)} runs, of whose options {len(differ)} differ"), _end_table(ends)]
    return Compared(out=str(out), differences=differ, runs=ends, sections=said)


def sections(
    runs: Runs, differ: Mapping[str, Mapping[str, Any]], ends: Mapping[str, Mapping[str, Any]]
) -> list[Section]:
    """The page's."""
    rows = [[path, *(_words(values[name]) for name in runs)] for path, values in differ.items()]
    nothing = Text("Nothing: options, images and versions are the same.")
    said: list[Section] = [Heading("What differs"), Table(["option", *runs], rows) if rows else nothing]
    said += [Heading("How they ended"), _end_table(ends), Heading("In words")]
    said += [Text(f"{name}: {' '.join(verdict(history))}") for name, history in runs.items()]
    said += [Heading("Curves"), *_curves(runs)]
    strips: list[tuple[str, bytes]] = []
    for name, history in runs.items():
        painted = [*moments.read(history.folder, history.steps).items()]
        newest = [(what, jpeg) for what, jpeg in painted if what.startswith("step")][-1:]
        strips += [(f"{name}: {what}", jpeg) for what, jpeg in (*painted[:1], *newest)]
    if strips:
        said += [Heading("What they paint"), Strips(strips, "What each run was shown in the end, and what it painted.")]
    return said


def _named(histories: Sequence[History]) -> dict[str, History]:
    """Runs by their folders' names, by whole paths where two are alike."""
    names = [history.folder.resolve().name for history in histories]
    if len(set(names)) < len(names):
        names = [str(history.folder.resolve()) for history in histories]
    if len(set(names)) < len(names):
        raise UsageError("compare: one run is named twice")
    return dict(zip(names, histories, strict=True))


def _differences(runs: Runs) -> dict[str, dict[str, Any]]:
    """Of each option, and of images, versions and code, where it differs, the value in each run; None: it has none."""
    flat = {name: _flat(history) for name, history in runs.items()}
    paths = dict.fromkeys(path for values in flat.values() for path in values)
    found = {path: {name: values.get(path) for name, values in flat.items()} for path in paths}
    return {
        path: values
        for path, values in found.items()
        if path not in _NO_DIFFERENCE and len({json.dumps(value) for value in values.values()}) > 1
    }


def _flat(history: History) -> dict[str, Any]:
    ran, data = history.ran, history.said("data")
    also = {name: ran.get(name) for name in ("versions", "hardware", "git")}
    if hardware := history.said("hardware"):
        also["hardware"] = {key: value for key, value in hardware.items() if key != "launchers"}
    if data:
        also["data"] = {key: data.get(key) for key in ("images", "classes", "fingerprint")}
    return {**by_path(ran["config"]), **by_path(also)}


def _end(history: History) -> dict[str, Any]:
    """Where a run is, and the last value of all that it measures."""
    batch_size = history.option("schedule.batch_size")
    seen = history.steps * batch_size if isinstance(batch_size, int) else None
    measured = {key: history.last(key) for key in ("loss", *history.measures)}
    return {"steps": history.steps, "images": seen, "seconds": history.seconds or None, **measured}


def _end_table(ends: Mapping[str, Mapping[str, Any]]) -> Table:
    keys = dict.fromkeys(key for end in ends.values() for key in end)
    names = {"images": "images seen", "seconds": "time in steps"}
    rows = [[name, *(_shown(key, end.get(key)) for key in keys)] for name, end in ends.items()]
    return Table(["run", *(names.get(key, measure(key)) for key in keys)], rows)


def _shown(key: str, value: Any) -> str:
    if value is None:
        return _ABSENT
    return duration(value) if key == "seconds" else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _curves(runs: Runs) -> list[Section]:
    until = max(history.steps for history in runs.values())
    measures = dict.fromkeys(key for history in runs.values() for key in history.measures)
    keys = {"loss": "training loss"} | {key: measure(key) for key in measures} | {"lr": "learning rate"}
    said: list[Section] = []
    for key, label in keys.items():
        lines = {name: points for name, history in runs.items() if (points := history.points(key))[0]}
        if lines:
            window = max(1, max(len(steps) for steps, _ in lines.values()) // 50) if key == "loss" else 1
            falls = key.endswith("loss")
            drawn = figures.curve(lines, ylabel=label, smooth=window, cut_start=falls, log=falls, until=until)
            strong = f" Strong lines: moving means of {window} logged steps." if window > 1 else ""
            caption = label.capitalize() if label.split()[0].islower() else label  # kNN is written so
            said.append(Figure(drawn, f"{caption}.{strong}"))
    return said or [Text("No step has been logged yet.")]


def _words(value: Any) -> str:
    said = _ABSENT if value is None else value if isinstance(value, str) else json.dumps(value)
    return said if len(said) <= _LONGEST else f"{said[: _LONGEST - 1]}…"
