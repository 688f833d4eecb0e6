"""What `maekit plan` says a step holds, beside what processes on a CPU were seen to hold.

Each row trains four steps by maekit's own loop, on pixels made up beforehand, in processes that do nothing else, and
reads the peak of their resident memory beyond what they had before the model was built. glibc keeps what was freed for
later; `returned` has it give freed blocks back at once, so that what is held is what is in use.

    python benchmarks/memory_plan.py --rows "vit-base 8" "swin-tiny 8" "hiera-tiny 8" "hiera-tiny 4 fsdp"
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from results import write_result

import maekit
from maekit.config import PretrainConfig
from maekit.data.loader import Batch
from maekit.engine import loop
from maekit.engine.distributed import join
from maekit.engine.schedule import Plan
from maekit.models import mae
from maekit.presets import PRETRAIN
from maekit.recipes.pretrain import PretrainTask

_RETURNS = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # blocks above 64 KiB go back to the system when they are freed
_PROCESSES = 2  # of ddp and fsdp
_IMAGES = 1_000_000
_STEPS = 4


def main() -> None:
    options = _options()
    if options.held is not None:
        _train(options.held)
        return
    lines = [
        f"float32, one thread a process, {_PROCESSES} processes by gloo for ddp and fsdp. `planned` is the total of",
        "`maekit plan`, `seen` the peak of the first process's resident memory beyond what it had before the model was",
        "built, MB (10^6 bytes). `returned`: glibc gives freed blocks back at once; `as it is`: it keeps them.",
        "",
        "| run | planned | seen, returned | planned / seen | seen, as it is | planned / seen |",
        "|---|---|---|---|---|---|",
    ]
    for row in options.rows:
        planned, seen, kept = _planned(row), _seen(row, _RETURNS), _seen(row, {})
        numbers = f"{planned:,.0f} | {seen:,.0f} | {planned / seen:.2f} | {kept:,.0f} | {planned / kept:.2f}"
        lines.append(f"| {_words(row)} | {numbers} |")
        print(lines[-1], flush=True)
    write_result("memory-plan", "cpu", [*lines, "", *options.note], options.out)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    rows = ["vit-base 8", "swin-tiny 8", "hiera-tiny 8"]
    parser.add_argument("--rows", nargs="+", default=rows, help="PRESET IMAGES-A-PASS [ddp|fsdp] [recompute]")
    parser.add_argument("--note", nargs="*", default=[], help="lines under the table")
    parser.add_argument("--out", default="", help="result file")
    parser.add_argument("--held", help=argparse.SUPPRESS)
    return parser.parse_args()


def _words(row: str) -> str:
    name, images, *how = row.split()
    said = {"ddp": f"ddp x {_PROCESSES}", "fsdp": f"fsdp x {_PROCESSES}", "recompute": "activations recomputed"}
    return ", ".join([name, f"{images} images a pass", *(said[word] for word in how)])


def _config(row: str) -> tuple[PretrainConfig, int]:
    """The run, and in how many processes."""
    name, images, *how = row.split()
    processes = _PROCESSES if {"ddp", "fsdp"} & {*how} else 1
    config = PRETRAIN[name]()
    schedule = replace(
        config.schedule, steps=_STEPS, batch_size=int(images) * processes, micro_batch_size=int(images), warmup_epochs=0
    )
    run = replace(
        config.run,
        device="cpu",
        precision="fp32",
        tensorboard=False,
        parallel="fsdp" if "fsdp" in how else "ddp",
        checkpoint_activations="recompute" in how,
    )
    return replace(config, schedule=schedule, run=run), processes


def _planned(row: str) -> float:
    config, processes = _config(row)
    said = maekit.plan(config, images=_IMAGES, gpus=processes)
    return next(way["total"] for way in said.memory if way["asked"]) * 1e3


def _seen(row: str, environment: dict[str, str]) -> float:
    _, processes = _config(row)
    start = [sys.executable, __file__, "--held", row]
    if processes > 1:
        start[1:1] = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        start, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def _train(row: str) -> None:
    """Prints what the first process held at its peak, in MB."""
    config, _ = _config(row)
    with join("cpu", timeout=600) as world:
        torch.ones(64, 64, requires_grad=True).mm(torch.ones(64, 64)).sum().backward()  # loads what any step loads
        before = _resident("VmRSS")
        middle = (0.5,) * config.model.channels
        model = mae.build(config.model, config.target, config.mask, middle, middle, seed=0)
        model.recompute_activations(config.run.checkpoint_activations)
        plan = Plan.of(config.optimizer, config.schedule, _IMAGES, world.size)

        def batches(_: int) -> Iterator[Batch]:
            for step in range(_STEPS):
                if step == _STEPS - 1 and world.is_first:
                    print((_resident("VmHWM") - before) / 1e6, flush=True)
                yield _batch(config, plan.micro_batch)

        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        task: Any = PretrainTask(model, seed=0)
        loop.train(
            task, batches, plan=plan, optimizer=config.optimizer, config=config.run, world=world, folder=None, facts={}
        )


def _batch(config: PretrainConfig, images: int) -> Batch:
    pixels = torch.randint(256, (images, config.model.channels, *config.model.image_hw), dtype=torch.uint8)
    numbers = torch.arange(images)
    return Batch(pixels, numbers, numbers, numbers * 0, numbers * 0)


def _resident(name: str) -> int:
    """VmRSS (now) or VmHWM (at its peak) of this process, in bytes; Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))


if __name__ == "__main__":
    main()
