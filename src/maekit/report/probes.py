"""What probes said of a run's weights: kept in its folder, and a part of its report."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maekit import storage, strict_json
from maekit.engine import metrics
from maekit.engine.run_state import PROBES
from maekit.errors import StorageError
from maekit.report import page
from maekit.report.history import History
from maekit.sections import Heading, Part, Section, Table

log = logging.getLogger("maekit")

_SHOWN = 40  # rows
_WRITTEN = {"weights", "steps", "data", "val", "train_images", "val_images", "rows"}
_SAME = ("kind", "features", "blocks", "k", "probe", "weights", "data", "val", "per_class")
"""What two judgements have in common of which only the newer is shown."""


def keep(weights: Path, said: Mapping[str, Any]) -> None:
    """Add what a probe said of a weights file to the run whose folder it lies in, and to the run's report.

    said: {rows, data, val, per_class, train_images, val_images}. Nothing is done where the file is no run's; what
    cannot be written costs a line in the log, and no judgement.
    """
    around = (folder for folder in [*weights.parents][:3] if (folder / "config.json").is_file())  # or its checkpoints
    run = next((folder for folder in around if (folder / "metrics.jsonl").is_file()), None)
    if run is None:
        return
    record = {"weights": str(weights.relative_to(run)), "steps": History.of(run).steps, **said}
    try:
        with (run / PROBES).open("a", encoding="utf-8") as file:
            file.write(strict_json.dumps(record) + "\n")
        report = run / "report.html"
        if report.exists():
            storage.write_text(report, page.replaced(report.read_text(encoding="utf-8"), part(run)))
    except (OSError, StorageError) as error:
        log.warning("%s: what was found cannot be kept there (%s)", run, getattr(error, "strerror", None) or error)
        return
    log.info("kept in %s%s", run / PROBES, " and shown in its report.html" if report.exists() else "")


def kept(run: Path) -> list[Mapping[str, Any]]:
    """Judgements of a run's weights: {weights, steps, data, val, per_class, train_images, val_images, rows} each."""
    return [record for record in metrics.read(run / PROBES) if record.keys() >= _WRITTEN]


def part(run: Path) -> Part:
    """The newest of all that was judged; empty where nothing was."""
    rows: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
    for record in kept(run):
        for row in reported(record):
            same = json.dumps([row.get(name, record.get(name)) for name in _SAME])
            rows.pop(same, None)
            rows[same] = record, row
    shown = list(rows.values())[-_SHOWN:]
    if not shown:
        return Part("probes")
    files = len({record["weights"] for record, _ in shown}) > 1
    note = "Top-1 from features that stay as they are, by what `maekit probe` was asked for; the newest of each kind."
    if len(rows) > len(shown):
        note += f" The last {len(shown)} of {len(rows)}; all are in {PROBES}."
    headers = ["probe", "top-1", "features", "learned from", "judged on", "after step", *(["weights"] if files else [])]
    cells = [[*_cells(record, row), *([record["weights"]] if files else [])] for record, row in shown]
    sections: list[Section] = [Heading("Judged by probes"), Table(headers, cells, note)]
    return Part("probes", sections)


def reported(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Rows of a judgement; of kNN those of one number of neighbours, 20 where it was tried."""
    rows: list[Mapping[str, Any]] = record["rows"]
    tried = [row["k"] for row in rows if "k" in row]
    k = 20 if 20 in tried else next(iter(tried), None)
    return [row for row in rows if row.get("k", k) == k]


def _cells(record: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    kind = f"{row['kind']}, k = {row['k']}" if "k" in row else row["kind"]
    kind = f"{kind}, {row['probe']}" if row.get("probe") == "paper" else kind
    blocks = "" if row.get("blocks", 1) == 1 else f", last {row['blocks']} blocks"
    few = "" if record.get("per_class") is None else f", {record['per_class']} of each class"
    learned = f"{record['data']} ({record['train_images']:,}{few})"
    judged = f"{record['val']} ({record['val_images']:,})"
    return [kind, f"{row['top1']:.2%}", f"{row['features']}{blocks}", learned, judged, f"{record['steps']:,}"]
