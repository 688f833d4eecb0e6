"""Images per second and peak memory of a Swin training step: uniform and dense masked pretraining, and supervised.

    python benchmarks/swin.py --image-size 256 --batch-size 8 --rounds 5

Synthetic images, float32 or bf16, the same optimizer for all, in turn; each trains at the windows of its preset.
"""

import argparse
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from statistics import median

import torch
from measure import Step, alternate, peak_megabytes, rate
from results import write_result

from maekit.config import ClassifierConfig, ModelConfig
from maekit.data.loader import Batch
from maekit.models import classifier, mae
from maekit.presets import PRETRAIN
from maekit.recipes.pretrain import PretrainTask

WAYS = {"uniform": "swin-tiny", "dense": "swin-tiny-simmim", "supervised": "swin-tiny"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", default="")
    parser.add_argument("--peak", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(peak_megabytes(lambda: make_step(options.peak, options), options.device))
        return
    steps = {way: make_step(way, options) for way in WAYS}
    seconds = alternate(steps, rounds=options.rounds, per_round=options.steps, device=options.device)
    dense = median(seconds["dense"])
    lines = [
        f"Swin-T, {options.image_size} px, batch {options.batch_size}, {options.precision}.",
        "",
        "| way | images/s, median (quartiles) | against dense | peak memory, MB |",
        "|---|---|---|---|",
    ]
    for way, values in seconds.items():
        words = ["--peak", way, "--image-size", str(options.image_size), "--batch-size", str(options.batch_size)]
        words += ["--precision", options.precision, "--device", options.device]
        done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=True)
        speed = rate(options.batch_size * options.steps, values)
        memory = float(done.stdout.splitlines()[-1])
        lines.append(f"| {way} | {speed} | {dense / median(values):.2f} | {memory:,.0f} |")
        print(lines[-1], flush=True)
    write_result("swin", options.device, lines, options.out)


def make_step(way: str, options: argparse.Namespace) -> Step:
    """A call that does one training step."""
    preset = PRETRAIN[WAYS[way]]()
    config = replace(preset, model=_at(preset.model, way, options.image_size))
    count, device = options.batch_size, options.device
    pixels = torch.randint(0, 256, (count, 3, *config.model.image_hw), dtype=torch.uint8, device=device)
    numbers = torch.arange(count, device=device)
    if way == "supervised":
        settings, classes = ClassifierConfig(pooling="mean"), tuple(map(str, range(1000)))
        model = classifier.build(config.model, settings, classes, mean=MEAN, std=STD, seed=0).to(device)
        forward = lambda: torch.nn.functional.cross_entropy(model(model.standardise(pixels)), numbers)  # noqa: E731
    else:
        model = mae.build(config.model, config.target, config.mask, MEAN, STD, seed=config.run.seed).to(device)
        task = PretrainTask(model, seed=config.run.seed)
        batch = Batch(pixels, numbers, numbers, numbers * 0, numbers * 0)
        forward = lambda: task.loss(batch)["loss"]  # noqa: E731
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    context = torch.autocast(device.split(":")[0], torch.bfloat16) if options.precision == "bf16" else nullcontext()

    def step() -> None:
        with context:
            value = forward()
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _at(model: ModelConfig, way: str, size: int) -> ModelConfig:
    """The preset's model at this size; dense with a window of 8 where the preset's does not divide it."""
    if way == "dense" and (size // 4) % (model.window or 7):
        model = replace(model, window=8)
    return replace(model, image_size=size)


if __name__ == "__main__":
    main()
