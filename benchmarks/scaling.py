"""Pretraining in 1, 2 and 4 processes: images per second, the share of communication, memory a process.

Each number comes from a job of its own under torchrun, on synthetic images. *alone* is as many processes beside each
other, each training by itself: what they compete for is the same, and nothing is sent. The share of communication is
what a step takes longer than that. Memory is what a process holds at the end of its steps beyond what it held before
there was a model, and its peak, which has the whole model in it, as every process builds it before it is divided.

    python benchmarks/scaling.py --models vit-tiny vit-small vit-base --processes 1 2 4
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from results import write_result

from maekit.config import OptimizerConfig, RunConfig, ScheduleConfig
from maekit.data.loader import Batch
from maekit.engine.distributed import World, join
from maekit.engine.loop import train
from maekit.engine.schedule import Plan
from maekit.models import mae
from maekit.presets import PRETRAIN
from maekit.recipes.pretrain import PretrainTask

WAYS = ("alone", "ddp", "fsdp")


def main() -> None:
    options = _options()
    if options.worker:
        _work(options)
        return
    lines = [
        f"Batches of {options.batch_size} images of {options.image_size} px a process, {options.steps} steps, fp32, "
        f"{options.device}; {os.cpu_count()} cores.",
        "",
        "| model | processes | way | images/s | communication | MB held | MB at its peak |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in options.models:
        for count in options.processes:
            rates: dict[str, float] = {}
            for way in WAYS if count > 1 else WAYS[:1]:
                said = _job(model, count, way, options)
                rates[way] = sum(one["rate"] for one in said) if way == "alone" else said[0]["rate"]
                share = "" if way == "alone" else f"{max(0.0, 1 - rates[way] / rates['alone']):.0%}"
                held, peak = (max(one[key] for one in said) for key in ("held", "peak"))
                lines.append(f"| {model} | {count} | {way} | {rates[way]:.1f} | {share} | {held:.0f} | {peak:.0f} |")
                print(lines[-1], flush=True)
    write_result("scaling", options.device, lines, options.out)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vit-tiny", "vit-small", "vit-base"])
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--batch-size", type=int, default=4, help="images a step and process")
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--steps", type=int, default=6, help="the first is not timed")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--out", default="", help="result file; the default is benchmarks/results/THEME_HARDWARE_DATE.md"
    )
    parser.add_argument("--worker", nargs=3, metavar=("MODEL", "WAY", "FOLDER"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _job(model: str, count: int, way: str, options: argparse.Namespace) -> list[dict[str, float]]:
    """What each process of a job measured."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        command += [__file__, "--worker", model, way, folder, "--device", options.device]
        for name in ("batch_size", "image_size", "steps"):
            command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
        threads = str(max(1, (os.cpu_count() or 1) // count))
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": threads})
        return [json.loads(path.read_text()) for path in sorted(Path(folder).iterdir())]


def _work(options: argparse.Namespace) -> None:
    name, way, folder = options.worker
    before = _held()
    with join(options.device) as joined:
        world = World(device=joined.device) if way == "alone" else joined
        preset = PRETRAIN[name]()
        model = replace(preset.model, image_size=options.image_size)
        task = PretrainTask(mae.build(model, preset.target, preset.mask, (0.5,) * 3, (0.2,) * 3, seed=0), seed=0)
        batch_size = options.batch_size * world.size
        schedule = ScheduleConfig(steps=options.steps, batch_size=batch_size, micro_batch_size=options.batch_size)
        optimizer = OptimizerConfig(lr=1e-4)
        plan = Plan.of(optimizer, schedule, batch_size, world.size)
        run = RunConfig(
            device=options.device, precision="fp32", tensorboard=False, log_every=options.steps,
            parallel="fsdp" if way == "fsdp" else "ddp",
        )  # fmt: skip
        joined.wait()
        outcome = train(
            task, partial(_batches, options, plan), plan=plan, optimizer=optimizer, config=run, world=world,
            folder=None, facts={},
        )  # fmt: skip
        joined.wait()  # nothing is let go before all have measured
    said = {"rate": outcome.record["images_per_second"], "held": held[-1] - before, "peak": _peak() - before}
    (Path(folder) / f"{joined.rank}.json").write_text(json.dumps(said))


held: list[float] = []


def _batches(options: argparse.Namespace, plan: Plan, start: int):
    size, image = options.batch_size, options.image_size
    zeros = torch.zeros(size, dtype=torch.int64)
    images = torch.randint(256, (size, 3, image, image), dtype=torch.uint8)
    for _ in range(start, plan.steps):
        yield Batch(images, zeros, torch.arange(size), zeros, zeros)
        held.append(_held())


def _held() -> float:
    """MB that this process has in memory now; on a GPU, of its tensors there."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.memory_allocated() / 1e6
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _peak() -> float:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()
