"""CPU seconds from files on disk to an encoder of some quality: maekit's fast preset, its paper recipe, and a peer's.

Each run is a command of its own with a budget of CPU seconds, or on a GPU (`--device cuda`) of seconds: what a step and
a start cost is measured first, and the run's length, and with it its schedule, follows. Every encoder is judged by the
same probes (`maekit probe`).

    python benchmarks/time_to_quality.py --data TRAIN --val VAL --budgets 150 300 600 1200 --seeds 3

With --choose, fifths of the training images are held out and judged by, and VAL is not read: recipes are chosen so.
Finished runs are found again (--work), so that the same line goes on where it was cut off.
"""

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean, stdev

import pyarrow as pa
import pyarrow.parquet as pq
from results import write_result

HERE = Path(__file__).parent
NAMES = {"knn": "kNN", "linear": "a linear probe"}
UNITS = {"cpu": "CPU seconds", "wall": "seconds"}
FAST, OURS = "pretrain vit-tiny-fast", "maekit, vit-tiny-fast"
SIZES = "--image-size {size} --model.patch-size {patch}"
SHORT = "--run.no-tensorboard --device {device} --workers {workers}"
PEER = "--image-size {size} --patch-size {patch} --device {device} --workers {workers}"
CONTESTANTS = {
    OURS: FAST,
    "maekit, the paper's recipe": "pretrain vit-tiny --batch-size 64 --lr 1e-3",
    "vit-tiny-small-data": "pretrain vit-tiny-small-data",
    "transformers, the paper's decoder": "plain --decoder 512 8 16 --batch-size 64 --lr 1e-3",
    "transformers, a small decoder": "plain --decoder 192 4 3 --batch-size 64 --lr 1e-3",
    "transformers, a small decoder, rate / 4": "plain --decoder 192 4 3 --batch-size 64 --lr 2.5e-4",
    "transformers, a small decoder, bf16": "plain --decoder 192 4 3 --batch-size 64 --lr 1e-3 --precision bf16",
    "maekit, vit-base-fast": "pretrain vit-base-fast",
    "transformers, ViT-B, bf16": "plain --encoder 768 12 12 --batch-size 1024 --lr 6e-4 --precision bf16",
}
OFF = {
    "fast": "",
    "half of the hidden predicted": "--model.decoder.predicted-share 0.5",
    "all hidden patches predicted": "--model.decoder.predicted-share 1",
    "80% hidden": "--mask-ratio 0.8",
    "75% hidden": "--mask-ratio 0.75",
    "50% hidden": "--mask-ratio 0.5",
    "patches half as large": "--model.patch-size {patch/2}",
    "patches twice as large": "--model.patch-size {patch*2}",
    "encoder of six blocks": "--model.depth 6",
    "six blocks, a decoder of one, rate / 2": "--model.depth 6 --model.decoder.depth 1 --base-lr {rate/2}",
    "decoder of four blocks": "--model.decoder.depth 4",
    "pixels as they are": "--target raw",
    "crops of all": "--augment.scale 1 1",
    "decoder of one block": "--model.decoder.depth 1",
    "the peer's decoder": "--model.decoder.kind self --model.decoder.width 192 --model.decoder.depth 4 "
    "--model.decoder.heads 3 --model.decoder.predicted-share 1",
    "the peer's decoder, 75% hidden": "--mask-ratio 0.75 --model.decoder.kind self --model.decoder.width 192 "
    "--model.decoder.depth 4 --model.decoder.heads 3 --model.decoder.predicted-share 1",
    "rate / 2": "--base-lr {rate/2}",
    "rate x 2": "--base-lr {rate*2}",
    "batches of 64": "--batch-size 64",
    "batches of 256": "--batch-size 256",
    "two views of a decode": "--augment.repeats 2",
    "half the size first": "--schedule.resolutions {half} 0.5",
    "crops of .5 and more": "--augment.scale 0.5 1",
    "Muon": "--optimizer.name muon",
    "constant rate, cooldown": "--schedule.course cooldown",
    "average of the encoder": "--run.ema 0.99",
    "bf16": "--precision bf16",
    "fp32": "--precision fp32",
}


def main() -> None:
    options = _options()
    work = Path(options.work)
    places = prepare(options, work)
    names = options.only or list(OFF if options.choose else CONTESTANTS)
    found: dict[str, dict[float, list[dict]]] = {}
    for seed in range(options.seeds):
        for name in names:
            ours = options.choose or name == OURS
            for budget in options.budgets if ours else options.other_budgets or options.budgets:
                said = run(name, budget, seed, places, options, work)
                found.setdefault(name, {}).setdefault(budget, []).append(said)
                told = {key: round(said[key], 4) for key in (options.clock, *options.kinds)}
                print(name, budget, seed, told, flush=True)
    if options.picture:
        draw(found, options)
    write_result("time-to-quality", options.device, table(found, options), options.out)


def prepare(options: argparse.Namespace, work: Path) -> dict[str, Path]:
    """Images as files in class folders, those judged by, and a part of those learned from to probe with."""
    names = ("learn", "probe.parquet", "judged.parquet")
    places = {name.partition(".")[0]: work / name for name in names}
    if places["judged"].exists():
        return places
    table = pq.read_table(options.data)
    keys = [name for name in ("image", "img") if name in table.column_names]
    learn, judged = table, None if options.choose else pq.read_table(options.val)
    if options.choose:
        rows = range(len(table))
        judged = table.take(pa.array([row for row in rows if row % 5 == 0]))
        learn = table.take(pa.array([row for row in rows if row % 5]))
    for number, (image, label) in enumerate(zip(learn[keys[0]].to_pylist(), learn["label"].to_pylist(), strict=True)):
        folder = places["learn"] / f"{label:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:06d}.jpg").write_bytes(image["bytes"])
    few = max(1, len(learn) // options.probe_images)
    pq.write_table(learn.take(pa.array(range(0, len(learn), few))), places["probe"], row_group_size=500)
    few = max(1, len(judged) // options.probe_images)
    pq.write_table(judged.take(pa.array(range(0, len(judged), few))), places["judged"], row_group_size=500)
    return places


def run(name: str, budget: float, seed: int, places: dict[str, Path], options: argparse.Namespace, work: Path) -> dict:
    """Train within a budget of CPU seconds and judge; the answer is kept."""
    folder = work / "".join(c if c.isalnum() else "-" for c in f"{name} {budget:g} {seed}")
    answer = folder.with_suffix(".json")
    if answer.exists():
        return json.loads(answer.read_text())
    start, step = cost(name, places, options, work)
    steps = max(20, round((budget - start) / step))
    began, cpu = time.perf_counter(), cpu_seconds()
    train(name, steps, seed, folder, places, options)
    said = {"cpu": cpu_seconds() - cpu, "wall": time.perf_counter() - began, "steps": steps}
    averaged = folder / "model_ema.safetensors"
    weights = averaged if averaged.exists() else folder
    probed = command("-m", "maekit", "probe", "--weights", weights, "--data", places["probe"], "--val",
                     places["judged"], "--kinds", *options.kinds, "--crop-share", "1", "--json")  # fmt: skip
    said |= {kind: probed[kind]["top1"] for kind in options.kinds}
    answer.write_text(json.dumps(said))
    return said


def cost(name: str, places: dict[str, Path], options: argparse.Namespace, work: Path) -> tuple[float, float]:
    """CPU seconds of a start and its end, and of a step; from a short and a longer run, kept."""
    path = work / "cost.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    if name not in known:
        spent = []
        for steps in (10, 40):
            clock = cpu_seconds if options.clock == "cpu" else time.perf_counter
            began = clock()
            train(name, steps, 0, work / "cost", places, options)
            spent.append(clock() - began)
        step = (spent[1] - spent[0]) / 30
        known[name] = (spent[0] - 10 * step, step)
        path.write_text(json.dumps(known))
    return known[name]


def train(name: str, steps: int, seed: int, out: Path, places: dict[str, Path], options: argparse.Namespace) -> None:
    """One contestant's training, as the command that a person would type."""
    text = CONTESTANTS.get(name, f"{FAST} {options.base}")
    values = {"size": options.image_size, "patch": options.patch_size, "half": options.image_size // 2}
    values |= {"device": options.device, "workers": options.workers}
    data = ["--data", places["learn"], "--steps", steps, "--seed", seed, "--out", out]
    if text.startswith("plain "):
        words = shlex.split(text.removeprefix("plain ") + " " + PEER.format(**values))
        command(HERE / "plain_loop.py", *words, *data)
        return
    extra = OFF.get(name, "")
    for mark, factor in (("/2}", 0.5), ("*2}", 2.0)):
        extra = extra.replace(f"{{rate{mark}", f"{options.base_lr * factor:g}")
        extra = extra.replace(f"{{patch{mark}", f"{round(options.patch_size * factor)}")
    text = f"{text} {SIZES} {SHORT} {extra}".format(**values)
    command("-m", "maekit", *_last_of_each(shlex.split(text)), *data, "--overwrite", "--json")


def _last_of_each(words: list[str]) -> list[str]:
    """Options given twice, once: as given last."""
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("--") or not groups:
            groups.append([word])
        else:
            groups[-1].append(word)
    last = {group[0]: group for group in groups}
    return [word for group in groups if last[group[0]] is group for word in group]


def command(*words: object) -> dict:
    """The JSON that Python WORDS... answers."""
    environment = {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    line = [sys.executable, *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"{shlex.join(line)}\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def cpu_seconds() -> float:
    """Of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(found: dict[str, dict[float, list[dict]]], options: argparse.Namespace) -> list[str]:
    """What was found, and how much sooner each is at the best peer's last quality."""
    lines = [f"Judged by {'held-out training images' if options.choose else 'the validation images'}; "
             f"{options.seeds} seeds, mean ± standard deviation. {options.note}".rstrip(), "",
             " | ".join(["| run", "CPU seconds", "seconds by the clock", "steps", *options.kinds]) + " |",
             "|---" * (4 + len(options.kinds)) + "|"]  # fmt: skip
    for name, budgets in found.items():
        for said in budgets.values():
            numbers = [spread([one[key] for one in said]) for key in options.kinds]
            spent = [str(round(mean(one[key] for one in said))) for key in ("cpu", "wall", "steps")]
            lines.append(f"| {name} | {' | '.join([*spent, *numbers])} |")
    return lines + sooner(found, options)


def draw(found: dict[str, dict[float, list[dict]]], options: argparse.Namespace) -> None:
    """Quality against what was spent: a panel for each kind of probe, a line for each run, bars of a deviation."""
    import matplotlib.pyplot as plt

    kinds, clock, unit = options.kinds, options.clock, UNITS[options.clock]
    untrained = dict(zip(kinds, options.untrained, strict=False))
    figure, panels = plt.subplots(1, len(kinds), figsize=(4.5 * len(kinds), 3.6), squeeze=False, layout="constrained")
    for panel, kind in zip(panels[0], kinds, strict=True):
        for number, (name, budgets) in enumerate(found.items()):
            runs = sorted(budgets.values(), key=lambda said: mean(one[clock] for one in said))
            spent = [mean(one[clock] for one in said) for said in runs]
            top1 = [mean(one[kind] for one in said) for said in runs]
            bars = [stdev(one[kind] for one in said) if len(said) > 1 else 0.0 for said in runs]
            panel.errorbar(spent, top1, bars, marker="osD^v"[number % 5], capsize=3, label=name)
        panel.set(xscale="log", xlabel=f"{unit}, from files on disk", ylabel=f"top-1 by {NAMES[kind]}")
        if untrained:
            panel.axhline(untrained[kind], color="gray", linestyle="--", label="untrained")
        panel.set_xticks([50 * 2**power for power in range(12)], labels=[f"{50 * 2**n:,}" for n in range(12)])
        panel.minorticks_off()
        seen = [one[clock] for budgets in found.values() for said in budgets.values() for one in said]
        panel.set_xlim(0.8 * min(seen), 1.25 * max(seen))
        panel.grid(alpha=0.3)
    panels[0][0].legend(fontsize="small")
    figure.savefig(options.picture, dpi=110)


def sooner(found: dict[str, dict[float, list[dict]]], options: argparse.Namespace) -> list[str]:
    """For each measure: what is spent until the best peer's last quality, between budgets by their logarithm."""
    import numpy as np

    unit = UNITS[options.clock]
    peers = [name for name in found if name.startswith("transformers")]
    lines = ["", f"| until the best peer's last | it is | its {unit} | run | {unit} | times sooner |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    if not peers:
        return []
    for measure in options.kinds:
        curves = {}
        for name, budgets in found.items():
            points = sorted(
                (mean(o[options.clock] for o in said), mean(o[measure] for o in said)) for said in budgets.values()
            )
            curves[name] = np.array(points).T
        best = max(peers, key=lambda name: curves[name][1].max())
        place = int(curves[best][1].argmax())
        goal, at = curves[best][1][place], curves[best][0][place]
        for name in found:
            if name.startswith("transformers"):
                continue
            spent, quality = curves[name]
            reached = np.maximum.accumulate(quality)
            if reached[-1] < goal:
                lines.append(f"| {measure} | {goal:.4f} | {at:.0f} | {name} | not within {spent[-1]:.0f} | |")
                continue
            when = spent[0] if reached[0] >= goal else float(np.exp(np.interp(goal, reached, np.log(spent))))
            sign = "at most " if reached[0] >= goal else ""
            lines.append(f"| {measure} | {goal:.4f} | {at:.0f} | {name} | {sign}{when:.0f} | {at / when:.1f} |")
    return lines


def spread(values: list[float]) -> str:
    """Mean, with the standard deviation where there are several."""
    return f"{mean(values):.4f} ± {stdev(values):.4f}" if len(values) > 1 else f"{mean(values):.4f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="training images, parquet in hub layout")
    parser.add_argument("--val", default="", help="images to judge by, likewise")
    parser.add_argument("--choose", action="store_true", help="hold out training images, vary the fast preset")
    parser.add_argument("--only", nargs="+", help="names of runs")
    parser.add_argument("--base", default="", help="with --choose: options that all have")
    parser.add_argument("--base-lr", type=float, default=4e-3, help="with --choose: the preset's")
    parser.add_argument("--budgets", nargs="+", type=float, required=True, help="CPU seconds, or seconds")
    parser.add_argument("--other-budgets", nargs="+", type=float, help="of all but the fast preset, where they differ")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--patch-size", type=int, default=8)
    parser.add_argument("--probe-images", type=int, default=5000)
    parser.add_argument("--kinds", nargs="+", default=["knn", "linear"], choices=["knn", "linear"], help="of probe")
    parser.add_argument("--picture", default="", help="draw the curves to this file")
    parser.add_argument(
        "--untrained", nargs="+", type=float, default=[], help="top-1 of the untrained encoder, by kind"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode, of maekit's runs and peers'")
    parser.add_argument("--note", default="", help="what ran beside")
    parser.add_argument("--work", default="runs/time-to-quality")
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    options.clock = "cpu" if options.device == "cpu" else "wall"
    return options


if __name__ == "__main__":
    main()
