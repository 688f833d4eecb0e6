"""How well measures that need no labels rank a run's checkpoints against their linear probes.

    python benchmarks/label_free.py runs/a runs/b --train photos --val held-out

Of each checkpoint of each run (`--keep` has to have kept them): the held-out loss, RankMe, alpha-ReQ and LiDAR of
`--val`, kNN and the fast linear probe learnt on `--train`. Then Spearman's rank correlation of each measure with the
probe, signed so that 1 is the same order: within each run, which is what ending it early rests on, and over all.
"""

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from results import write_result
from scipy.stats import spearmanr

import maekit
from maekit import presets
from maekit.config import PretrainConfig, ProbeConfig
from maekit.data.loader import BadImages
from maekit.data.sources import Source, open_source
from maekit.engine.distributed import World
from maekit.engine.patience import MEASURES
from maekit.recipes import probe
from maekit.recipes.validation import Validation

Row = dict[str, float]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("runs", nargs="+", type=Path, help="run folders with several checkpoints each")
    words.add_argument("--train", required=True, help="labelled SOURCE that probes learn from")
    words.add_argument("--val", required=True, help="labelled SOURCE that all is judged on")
    words.add_argument("--views", type=int, default=10, help="masked views an image, of LiDAR")
    words.add_argument("--images", type=int, default=5000, help="images at most for features and loss")
    words.add_argument("--theme", default="label-free", help="name of the result file")
    words.add_argument("--beside", default="nothing else ran", help="what else the machine did meanwhile")
    words.add_argument("--out", default="", help="result file; empty: under benchmarks/results")
    asked = words.parse_args()
    logging.getLogger("maekit").setLevel(logging.WARNING)
    train, val = open_source(asked.train), open_source(asked.val)
    found = {run: judged(run, train, val, asked.views, asked.images) for run in asked.runs}
    lines = [
        f"- learnt from {asked.train} ({len(train):,} images), judged on {asked.val} ({len(val):,})",
        f"- beside it: {asked.beside}",
        f"- LiDAR from {asked.views} masked views an image",
        "",
        *table_of_ranks(found),
        "",
        *table_of_values(found),
    ]
    write_result(asked.theme, "cpu", lines, asked.out)


def judged(run: Path, train: Source, val: Source, views: int, images: int) -> dict[int, Row]:
    """By step of its checkpoints, what each measure says of it, and the linear probe's top-1."""
    config = presets.find(presets.PRETRAIN, PretrainConfig, str(run / "config.json"))
    asked = replace(config.validation, lidar_views=views, images=images)
    world = World(device=torch.device("cpu"))
    validation = Validation(replace(config, validation=asked), train, val, world=world, bad=BadImages(train, 0.01))
    found = {}
    steps = sorted(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*"))
    for step in steps:
        model = maekit.load(run / "checkpoints" / f"step-{step}" / "model.safetensors")
        assert isinstance(model, maekit.MaskedAutoencoder)
        model.eval()
        with torch.no_grad():
            found[step] = validation.judge(model)
        options = ProbeConfig(kinds=("linear",), crop_share=config.validation.crop_share, workers=config.data.workers)
        found[step]["linear"] = probe.judge(model, train, val, options)["linear"]["top1"]
        print(run, step, found[step], flush=True)
    return found


def correlation(rows: list[Row], name: str) -> float | None:
    """Spearman's between a measure's goodness and the linear probe; None where either says nothing."""
    measure = MEASURES[name]
    pairs = [(measure.goodness(row[measure.key]), row["linear"]) for row in rows if measure.key in row]
    if len(pairs) < 3 or any(len(set(column)) == 1 for column in zip(*pairs, strict=True)):
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def table_of_ranks(found: dict[Path, dict[int, Row]]) -> list[str]:
    names = [
        name for name in MEASURES if any(MEASURES[name].key in row for rows in found.values() for row in rows.values())
    ]
    lines = ["## Spearman's rank correlation with the linear probe", ""]
    lines += [f"| checkpoints | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    within = {run: [correlation([*rows.values()], name) for name in names] for run, rows in found.items()}
    for run, values in within.items():
        lines.append(f"| {len(found[run])} of {run.name} | {' | '.join(map(_words, values))} |")
    means = [_mean([values[number] for values in within.values()]) for number in range(len(names))]
    if len(found) > 1:
        together = [row for rows in found.values() for row in rows.values()]
        lines.append(f"| mean of the runs | {' | '.join(map(_words, means))} |")
        lines.append(f"| all {len(together)} | {' | '.join(_words(correlation(together, name)) for name in names)} |")
    return lines


def table_of_values(found: dict[Path, dict[int, Row]]) -> list[str]:
    keys = list(dict.fromkeys(key for rows in found.values() for row in rows.values() for key in row))
    lines = ["## Each checkpoint", "", f"| run | step | {' | '.join(key.removeprefix('val_') for key in keys)} |"]
    lines.append(f"|---|---:|{'---:|' * len(keys)}")
    for run, rows in found.items():
        for step, row in rows.items():
            values = (f"{row[key]:.4g}" if key in row else "" for key in keys)
            lines.append(f"| {run.name} | {step} | {' | '.join(values)} |")
    return lines


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _words(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


if __name__ == "__main__":
    main()
