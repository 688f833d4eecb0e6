"""What researchers add to the recipe, each alone beside the same base: frozen features judged after as many steps.

    python benchmarks/extras.py --data TRAIN --val TEST --every 10

Judged by images held out of training (--val-split of the same draw), never by the test images: nothing is chosen here,
but whoever chooses by this table should not have seen them. Runs can be made apart (--only); a last call for all of
them finds the finished ones and writes the table.
"""

import json
import shlex
from pathlib import Path

import torch
from cifar import arguments, maekit, part_of
from results import write_result

BASE = (
    "--image-size 32 --model.patch-size 4 --model.width 96 --model.depth 4 --model.heads 3 "
    "--model.decoder.width 48 --model.decoder.depth 1 --model.decoder.heads 3 --normalise half --augment.crop random "
    "--augment.flip 0.5 --batch-size 128 --micro-batch-size 128 --schedule.warmup-epochs 2 --validation.crop-share 1 "
    "--val-split 0.2 --val-every 100 --run.no-tensorboard --workers 0"
)
EXTRAS = {
    "base": "",
    "base, another seed": "--seed 1",
    "Muon": "--optimizer.name muon",
    "constant rate, cooldown": "--schedule.course cooldown",
    "average of the encoder": "--run.ema 0.99",
    "layer scale 1e-5": "--model.layer-scale 1e-5",
    "4 register tokens": "--model.register-tokens 4",
    "rotary positions": "--model.positions rotary",
    "resolutions 16, 24, 32": "--schedule.resolutions 16 0.4 24 0.7",
    "a token for each channel": "--model.channel-tokens",
}


def main() -> None:
    parser = arguments(__doc__, "runs/extras")
    parser.add_argument("--only", nargs="+", choices=list(EXTRAS), default=list(EXTRAS))
    options = parser.parse_args()
    work = Path(options.work)
    data, images = part_of(options.data, options.every, work / "train.parquet")
    found = {}
    for name in options.only:
        folder = work / name.replace(",", "").replace(" ", "-")
        words = [*shlex.split(BASE), *shlex.split(options.pretrain or "--epochs 20"), *shlex.split(EXTRAS[name])]
        answer = folder / "answer.json"
        if not answer.exists():
            seed = words[words.index("--seed") + 1] if "--seed" in words else 0
            run = maekit("pretrain", "cifar", "--data", data, *words, "--out", folder, "--resume")
            judged = "model_ema.safetensors" if (folder / "model_ema.safetensors").exists() else "model.safetensors"
            probed = {
                file: maekit("probe", "--weights", folder / file, "--data", data, "--val-split", "0.2", "--seed", seed,
                             "--kinds", "knn", "linear")
                for file in dict.fromkeys(("model.safetensors", judged))
            }  # fmt: skip
            answer.write_text(json.dumps({"run": run, "probed": probed}))
        found[name] = json.loads(answer.read_text())
    lines = [
        f"{images:,} images, four fifths learned from, one fifth held out to judge by, a ViT of 4 blocks 96 wide, one",
        "run each: differences of the size of that between the two seeds of the base mean nothing.",
        "",
        "| what | kNN | linear | loss on held-out images | steps | minutes |",
        "|---|---|---|---|---|---|",
    ]
    for name, said in found.items():
        run = said["run"]
        for file, probed in said["probed"].items():
            mark = "" if file == "model.safetensors" else " (averaged)"
            lines.append(
                f"| {name}{mark} | {probed['knn']['top1']:.4f} | {probed['linear']['top1']:.4f} | "
                f"{run['val_loss']:.4f} | {run['steps']} | {run['minutes']:.1f} |"
            )
    write_result("extras", "cuda" if torch.cuda.is_available() else "cpu", lines, options.out)


if __name__ == "__main__":
    main()
