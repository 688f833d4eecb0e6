"""CIFAR-10 by the `cifar` presets: pretrain, judge frozen features, fine-tune and train from scratch, equally long.

On a GPU, the presets as they are but for their length:

    python benchmarks/cifar.py --data TRAIN --val TEST --pretrain "--epochs 400" --supervised "--epochs 100"

On a CPU, a part of the images and a smaller network; the result file says so:

    python benchmarks/cifar.py --data TRAIN --val TEST --every 10 --seeds 2 --model "--model.patch-size 4 ..." ...

Each part is a command a person would type, in processes of their own, so that a run that was cut off goes on when the
same line is given again.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean, stdev

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from results import write_result

from maekit.data.sources import open_source

PUBLISHED = "IcarusWizard/MAE, ViT-Ti/2: 74.13 from scratch, 89.77 after 2,000 epochs of MAE. arXiv 2402.03752: 96.41."


def main() -> None:
    options = arguments(__doc__, "runs/cifar").parse_args()
    work = Path(options.work)
    data, images = part_of(options.data, options.every, work / "train.parquet")
    val, held_out = part_of(options.val, options.every, work / "test.parquet")
    sources, model = ["--data", data, "--val", val], shlex.split(options.model)

    pretrained = work / "pretrained"
    words = ["pretrain", "cifar", *sources, *model, *shlex.split(options.pretrain)]
    answers = {"pretraining": maekit(*words, "--out", pretrained, "--resume")}
    probed = maekit("probe", "--weights", pretrained, *sources, "--crop-share", "1", "--kinds", "knn", "linear")
    supervised = [*sources, *shlex.split(options.supervised)]
    starts = {"scratch": ["scratch", "cifar", *model], "pretrained": ["finetune", "cifar", "--weights", pretrained]}
    top1: dict[str, list[float]] = {start: [] for start in starts}
    for seed in range(options.seeds):
        for start, words in starts.items():
            out = ["--seed", seed, "--out", work / f"{start}-{seed}", "--resume"]
            answers[f"{start}, seed {seed}"] = maekit(*words, *supervised, *out)
            top1[start].append(answers[f"{start}, seed {seed}"]["val_top1"])

    lines = [
        f"{images:,} training images, {held_out:,} test images (JPEG copies of the original pixels).",
        "No setting was chosen on the test images, and the last weights are judged, not the best.",
        "",
        "| what | top-1 on the test images |",
        "|---|---|",
        f"| kNN, frozen features | {probed['knn']['top1']:.4f} |",
        f"| linear, frozen features | {probed['linear']['top1']:.4f} |",
        *(f"| whole network, {start}, {len(values)} seeds | {spread(values)} |" for start, values in top1.items()),
        "",
        f"Published, for orientation, on all 50,000 images: {PUBLISHED}",
        "",
        "| run | steps | final loss | minutes |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {said['steps']} | {said['loss']:.4f} | {said['minutes']:.1f} |" for name, said in answers.items()
    ]
    write_result("cifar10", "cuda" if torch.cuda.is_available() else "cpu", lines, options.out)


def arguments(description: str, work: str) -> argparse.ArgumentParser:
    """The options of a comparison between starts; work: where its runs go by default."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", required=True, help="training images: parquet in hub layout, any source with --every 1"
    )
    parser.add_argument("--val", required=True, help="test images, likewise")
    parser.add_argument("--every", type=int, default=1, help="take every so-manieth image of both; 1: all")
    parser.add_argument("--model", default="", help="options of pretraining and scratch that shape the network")
    parser.add_argument("--pretrain", default="", help="options of pretraining")
    parser.add_argument("--supervised", default="", help="options of fine-tuning and scratch alike")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--work", default=work, help="folder of the runs")
    parser.add_argument("--out", default="")
    return parser


def part_of(path: str, every: int, out: Path) -> tuple[str, int]:
    """(a parquet file with every `every`-th row, its rows); with 1 the source itself, which may be of any kind."""
    if every == 1:
        return path, len(open_source(path))
    table = pq.read_table(path)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = table.take(pa.array(range(0, len(table), every)))
    pq.write_table(part, out, row_group_size=500)
    return str(out), len(part)


def maekit(*words: object) -> dict:
    """The answer of a command."""
    command = [sys.executable, "-m", "maekit.cli", *map(str, words), "--json"]
    print(shlex.join(command[1:]), flush=True)
    began = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    minutes = (time.perf_counter() - began) / 60
    return {**json.loads(done.stdout.splitlines()[-1]), "minutes": minutes}


def spread(values: list[float]) -> str:
    """Mean, with the standard deviation where there are several."""
    return f"{mean(values):.4f} ± {stdev(values):.4f}" if len(values) > 1 else f"{mean(values):.4f}"


if __name__ == "__main__":
    main()
