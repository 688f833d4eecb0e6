"""Swin (uniform and dense) and Hiera: fine-tuned after pretraining against from scratch, at equal budgets.

Both starts of a family have the same network, labels, steps and augmentation. On a GPU, CIFAR-10 at full width:

    python benchmarks/families.py --data TRAIN --val TEST --image-size 64 --pretrain "--epochs 200" \\
        --supervised "--epochs 50"

On a CPU, narrow networks on digits; the result file holds the whole command. Families can be run apart (`--only`); a
last call for all of them finds the finished runs and writes the table.
"""

import shlex
from pathlib import Path

import torch
from cifar import arguments, maekit, part_of, spread
from results import write_result

from maekit.presets import PRETRAIN

FAMILIES = {
    "Swin-T, uniform": ("swin-tiny", "swin-tiny", ["--model.window", "8"]),
    "Swin-T, dense": ("swin-tiny-simmim", "swin-tiny", ["--model.window", "8"]),
    "Hiera-T": ("hiera-tiny", "hiera-tiny", []),
}
"""Presets of pretraining and of supervised training, and what fits the network to small images."""


def main() -> None:
    parser = arguments(__doc__, "runs/families")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--decoder", default="", help="options of pretraining where the decoder has blocks")
    parser.add_argument("--finetune", default="", help="options of fine-tuning only")
    parser.add_argument("--scratch", default="", help="options of scratch only")
    parser.add_argument("--only", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    options = parser.parse_args()
    work = Path(options.work)
    data, images = part_of(options.data, options.every, work / "train.parquet")
    val, held_out = part_of(options.val, options.every, work / "test.parquet")
    sources = ["--data", data, "--val", val]
    lines = [
        f"{images:,} training images, {held_out:,} test images ({options.data}) at {options.image_size} px.",
        "Each family is pretrained once; seeds are those of supervised training. The last weights are judged, not the",
        "best.",
        "",
        "| family | scratch, top-1 | fine-tuned, top-1 | seeds |",
        "|---|---|---|---|",
    ]
    for family in options.only:
        pretraining, supervised, fit = FAMILIES[family]
        folder = work / family.lower().replace(",", "").replace(" ", "-")
        shape = [*fit, "--image-size", options.image_size, *shlex.split(options.model)]
        decoder = [] if PRETRAIN[pretraining]().model.decoder.kind == "linear" else shlex.split(options.decoder)
        words = [*sources, *shape, *decoder, *shlex.split(options.pretrain)]
        maekit("pretrain", pretraining, *words, "--out", folder / "pretrained", "--resume")
        top1: dict[str, list[float]] = {"scratch": [], "finetune": []}
        for seed in range(options.seeds):
            for verb, values in top1.items():
                start = shape if verb == "scratch" else ["--weights", folder / "pretrained"]
                own = shlex.split(options.scratch if verb == "scratch" else options.finetune)
                words = [*sources, *start, *shlex.split(options.supervised), *own, "--seed", seed]
                said = maekit(verb, supervised, *words, "--out", folder / f"{verb}-{seed}", "--resume")
                values.append(said["val_top1"])
        lines.append(f"| {family} | {spread(top1['scratch'])} | {spread(top1['finetune'])} | {options.seeds} |")
        print(lines[-1], flush=True)
    write_result("families", "cuda" if torch.cuda.is_available() else "cpu", lines, options.out)


if __name__ == "__main__":
    main()
