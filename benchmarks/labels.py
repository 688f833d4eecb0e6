"""What pretraining is worth by the number of labels: frozen features, fine-tuned, and from scratch, by family.

    python benchmarks/labels.py --data TRAIN --val TEST --labels 45:700 450:2100 all:5250 --twice

`--labels N:STEPS` are labelled images a class and the steps of supervised training, the same for both starts; with
`--twice` there is a third, from scratch with twice the steps. `--hold-out 10` judges by every tenth training image, and
VAL is not read: recipes are chosen so. Pretraining is once a family; seeds are those of labels, heads and order.

Each part is a command a person would type. What one answered is kept under `--work`, so the same line goes on where it
was cut off, and the same line in a second process takes the parts that are not begun; it ends where all that is left is
begun, or waits for a pretraining.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from cifar import spread
from results import write_result
from time_to_quality import cpu_seconds

FAMILIES = {
    "cifar-laptop": ("cifar-laptop", "cifar-laptop", ""),
    "ViT": ("vit-tiny-small-data", "vit-tiny-small-data", ""),
    "Swin, uniform": ("swin-tiny", "swin-tiny", "--model.window 8"),
    "Swin, dense": ("swin-tiny-simmim", "swin-tiny", "--model.window 8"),
    "Hiera": ("hiera-tiny", "hiera-tiny", ""),
}
"""Presets of pretraining and of supervised training, and what fits the network to small images."""
SHORT = "--workers 0 --run.no-tensorboard --device cpu"


def main() -> None:
    options = _options()
    work = Path(options.work)
    data, val, images = sources(options, work)
    found: dict[str, dict] = {}
    for name, words in parts(options, work, data, val):
        weights = Path(words[words.index("--weights") + 1]) if "--weights" in words else None
        waits = weights is not None and not weights.with_suffix(".json").exists()
        said = None if waits else answer(work / name, words)
        if said is not None:
            found[name] = said
            print(name, {key: said.get(key) for key in ("steps", "val_top1", "cpu_minutes")}, flush=True)
    missing = [name for name, _ in parts(options, work, data, val) if name not in found]
    if missing:
        print(f"not done yet, or at work in another process: {', '.join(missing)}")
        return
    judged = f"every {options.hold_out}th training image" if options.hold_out else options.val
    lines = [f"{images:,} training images ({options.data}), judged by {judged}. {options.note}".rstrip()]
    lines += ["", *frozen(options, found), "", *supervised(options, found)]
    write_result("labels", "cpu", lines, options.out)


def sources(options: argparse.Namespace, work: Path) -> tuple[str, str, int]:
    """(SOURCE to learn from, SOURCE to be judged by, images learned from)."""
    if not options.hold_out:
        return options.data, options.val, pq.read_metadata(options.data).num_rows
    learn, held = work / "learn.parquet", work / "held.parquet"
    if not held.exists():
        work.mkdir(parents=True, exist_ok=True)
        table = pq.read_table(options.data)
        for path, kept in ((learn, False), (held, True)):
            rows = [row for row in range(len(table)) if (row % options.hold_out == 0) is kept]
            pq.write_table(table.take(pa.array(rows)), path, row_group_size=500)
    return str(learn), str(held), pq.read_metadata(learn).num_rows


def parts(options: argparse.Namespace, work: Path, data: str, val: str) -> Iterator[tuple[str, list[str]]]:
    """Each command by its name: the pretrainings and probes, then supervised training, seed by seed."""
    common = shlex.split(SHORT)
    for family in options.families:
        preset, _, fit = FAMILIES[family]
        out = str(work / _name(family, "pretrained"))
        shape = [*shlex.split(fit), *shlex.split(options.model)]
        words = ["pretrain", preset, *shape, *shlex.split(options.pretrain), *common, "--data", data, "--val", val]
        yield _name(family, "pretrained"), [*words, "--out", out, "--resume"]
        words = ["probe", "--weights", out, "--data", data, "--val", val, "--crop-share", "1", "--device", "cpu"]
        yield _name(family, "probed"), [*words, "--kinds", *options.kinds]
    for seed in range(options.seeds):
        for family in options.families:
            for labels, steps, start in _starts(options):
                name = _name(family, labels, start, seed)
                words = _supervised(options, family, start, str(work / _name(family, "pretrained")))
                words += [] if labels == "all" else ["--per-class", labels]
                words += ["--steps", str(steps), *common, "--data", data, "--val", val, "--validation.every", "1e9"]
                yield name, [*words, "--seed", str(seed), "--out", str(work / name), "--resume"]


def _starts(options: argparse.Namespace) -> Iterator[tuple[str, int, str]]:
    """(labels a class, steps, how it starts)."""
    for one in options.labels:
        labels, _, steps = one.partition(":")
        yield labels, int(steps), "fine-tuned"
        yield labels, int(steps), "scratch"
        if options.twice:
            yield labels, 2 * int(steps), "scratch, twice as long"


def _supervised(options: argparse.Namespace, family: str, start: str, weights: str) -> list[str]:
    _, preset, fit = FAMILIES[family]
    own = shlex.split(options.supervised)
    if start == "fine-tuned":
        return ["finetune", preset, "--weights", weights, *own, *shlex.split(options.finetune)]
    shape = [*shlex.split(fit), *shlex.split(options.model)]
    return ["scratch", preset, *shape, *own, *shlex.split(options.scratch)]


def _name(*words: object) -> str:
    return "-".join(str(word).lower().replace(",", "").replace(" ", "-") for word in words)


def answer(path: Path, words: list[str]) -> dict | None:
    """What a command answered, now or before; None where another process is at it."""
    kept, lock = path.with_suffix(".json"), path.with_suffix(".lock")
    if kept.exists():
        return json.loads(kept.read_text())
    path.parent.mkdir(parents=True, exist_ok=True)
    if lock.exists() and not Path("/proc", lock.read_text() or "0").exists():
        lock.unlink()  # of a process that was cut off
    try:
        with lock.open("x") as own:
            own.write(str(os.getpid()))
    except FileExistsError:
        return None
    print(shlex.join(["maekit", *words]), flush=True)
    before = cpu_seconds()
    done = subprocess.run([sys.executable, "-m", "maekit", *words, "--json"], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    said = {**json.loads(done.stdout.splitlines()[-1]), "cpu_minutes": (cpu_seconds() - before) / 60}
    kept.write_text(json.dumps(said))
    lock.unlink()
    return said


def frozen(options: argparse.Namespace, found: dict[str, dict]) -> list[str]:
    lines = [f"| frozen features | pretraining: steps | CPU hours | {' | '.join(options.kinds)} |",
             f"|---|---:|---:|{'---:|' * len(options.kinds)}"]  # fmt: skip
    for family in options.families:
        run, probed = found[_name(family, "pretrained")], found[_name(family, "probed")]
        values = " | ".join(f"{probed[kind]['top1']:.4f}" for kind in options.kinds)
        lines.append(f"| {family} | {run['steps']} | {run['cpu_minutes'] / 60:.2f} | {values} |")
    return lines


def supervised(options: argparse.Namespace, found: dict[str, dict]) -> list[str]:
    lines = [f"| whole network, {options.seeds} seeds | labels a class | steps | CPU minutes a run | top-1 |",
             "|---|---|---:|---:|---|"]  # fmt: skip
    for family in options.families:
        for labels, steps, start in _starts(options):
            runs = [found[_name(family, labels, start, seed)] for seed in range(options.seeds)]
            minutes = sum(run["cpu_minutes"] for run in runs) / len(runs)
            top1 = spread([run["val_top1"] for run in runs])
            lines.append(f"| {family}, {start} | {labels} | {steps} | {minutes:.1f} | {top1} |")
    return lines


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="training images, parquet in hub layout")
    parser.add_argument("--val", default="", help="test images, likewise")
    parser.add_argument("--hold-out", type=int, default=0, help="judge by every so-manieth training image instead")
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=["cifar-laptop"])
    parser.add_argument("--labels", nargs="+", required=True, metavar="N:STEPS", help="labels a class, or all")
    parser.add_argument("--twice", action="store_true", help="from scratch with twice the steps, too")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", default=["knn", "linear", "attentive", "efficient"], help="of probe")
    parser.add_argument("--model", default="", help="options of pretraining and scratch that shape the network")
    parser.add_argument("--pretrain", default="", help="options of pretraining")
    parser.add_argument("--supervised", default="", help="options of fine-tuning and scratch alike")
    parser.add_argument("--finetune", default="", help="options of fine-tuning only")
    parser.add_argument("--scratch", default="", help="options of scratch only")
    parser.add_argument("--note", default="", help="what ran beside")
    parser.add_argument("--work", default="runs/labels")
    parser.add_argument("--out", default="")
    return parser.parse_args()


if __name__ == "__main__":
    main()
