"""Swin (uniform and dense) and Hiera on a part of CIFAR-10: fine-tuned after pretraining against from scratch.

Both starts of a family have the same network, labels, steps and augmentation. On a GPU, at the sizes of the presets:

    python benchmarks/families.py --data TRAIN --val TEST --image-size 64 --pretrain "--epochs 200" \\
        --supervised "--epochs 50"

On a CPU, narrow networks, a part of the images and few steps; the result file says so.
"""

import shlex
from pathlib import Path

import torch
from cifar import arguments, maekit, part_of, spread
from results import write_result

FAMILIES = {
    "Swin-T, uniform": ("swin-tiny", "swin-tiny", ["--model.window", "16"]),
    "Swin-T, dense": ("swin-tiny-simmim", "swin-tiny", ["--model.window", "16"]),
    "Hiera-T": ("hiera-tiny", "hiera-tiny", []),
}
"""Presets of pretraining and of supervised training, and what fits the network to small images."""


def main() -> None:
    parser = arguments(__doc__, "runs/families")
    parser.add_argument("--image-size", type=int, default=64)
    options = parser.parse_args()
    work = Path(options.work)
    data, images = part_of(options.data, options.every, work / "train.parquet")
    val, held_out = part_of(options.val, options.every, work / "test.parquet")
    sources = ["--data", data, "--val", val]
    lines = [
        f"{images:,} training images, {held_out:,} test images of CIFAR-10 (JPEG copies) at {options.image_size} px.",
        "Each family is pretrained once; seeds are those of supervised training. No setting was chosen on the test",
        "images, and the last weights are judged, not the best.",
        "",
        "| family | scratch, top-1 | fine-tuned, top-1 | seeds |",
        "|---|---|---|---|",
    ]
    for family, (pretraining, supervised, fit) in FAMILIES.items():
        folder = work / family.lower().replace(",", "").replace(" ", "-")
        shape = [*fit, "--image-size", options.image_size, *shlex.split(options.model)]
        maekit(
            "pretrain", pretraining, *sources, *shape, *shlex.split(options.pretrain),
            "--out", folder / "pretrained", "--resume",
        )  # fmt: skip
        top1: dict[str, list[float]] = {"scratch": [], "finetune": []}
        for seed in range(options.seeds):
            for verb, values in top1.items():
                start = shape if verb == "scratch" else ["--weights", folder / "pretrained"]
                words = [*sources, *start, *shlex.split(options.supervised), "--seed", seed]
                said = maekit(verb, supervised, *words, "--out", folder / f"{verb}-{seed}", "--resume")
                values.append(said["val_top1"])
        lines.append(f"| {family} | {spread(top1['scratch'])} | {spread(top1['finetune'])} | {options.seeds} |")
        print(lines[-1], flush=True)
    write_result("families", "cuda" if torch.cuda.is_available() else "cpu", lines, options.out)


if __name__ == "__main__":
    main()
