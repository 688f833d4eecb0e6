"""What every recipe does around its training: the processes, the run folder, what ran written down, what to warn of."""

import datetime
import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from maekit.config import RunConfig, ScheduleConfig
from maekit.data.sources import Source
from maekit.engine.distributed import World, join
from maekit.engine.run_state import RunFolder, open_run
from maekit.engine.schedule import Plan
from maekit.engine.task import Outcome
from maekit.errors import UsageError

log = logging.getLogger("maekit")

_RECORDED = ("maekit", "torch", "torchvision", "timm", "numpy", "pillow", "simplejpeg", "tifffile")


@contextmanager
def join_world(config: RunConfig) -> Iterator[World]:
    """The processes that train together. The caller's draws go on afterwards as if there had been no run."""
    with join(config.device, config.hang_timeout) as world:
        cards = range(torch.cuda.device_count()) if world.device.type == "cuda" else ()
        with torch.random.fork_rng(cards):
            yield world


@contextmanager
def hold_folder(config: RunConfig, name: str, world: World) -> Iterator[RunFolder | None]:
    """The run folder, on the first rank; None on the others. Errors of the first end all."""
    if not world.is_first:
        world.wait()
        yield None
        return
    path = Path(config.out) if config.out else Path("runs") / f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    with open_run(path, resume=config.resume, overwrite=config.overwrite) as folder:
        world.wait()
        yield folder


def record(
    settings: dict[str, Any], source: Source, fingerprint: str, plan: Plan, world: World, gflop: float
) -> dict[str, Any]:
    """config.json: what runs (all options in plain values), on which data and hardware, with which versions.

    gflop: of an image in training.
    """
    return {
        "config": settings,
        "data": {"source": source.text, "images": len(source), "classes": source.classes and len(source.classes),
                 "fingerprint": fingerprint, "passed_over": source.passed_over.as_dict()},
        "computed": {"steps": plan.steps, "warmup_steps": plan.warmup_steps, "lr": plan.lr, "base_lr": plan.base_lr,
                     "micro_batch": plan.micro_batch, "accumulation": plan.accumulation,
                     "world_size": plan.world_size, "gflop": gflop},
        "hardware": _hardware(world),
        "versions": _versions(),
        "git": _git_state(),
        "command": sys.argv,
    }  # fmt: skip


_FEW_STEPS = 100
_FAR_FEWER = 100  # times
_FALLEN = 0.05  # of the peak: a rate that needs no cooldown


def warnings(plan: Plan, schedule: ScheduleConfig, *, from_nothing: bool) -> Iterator[str]:
    """What a person should know of a run before it takes its time, each with what to change."""
    made_for = schedule.recipe_images
    if from_nothing and plan.images * _FAR_FEWER < made_for:
        other = "vit-tiny-small-data is made for so few, or " if made_for > 1000 else ""
        yield (
            f"{plan.images:,} images are few to start from nothing with a recipe for {made_for:,}: {other}go on from "
            "weights by --weights"
        )
    if plan.batch_size > plan.images:
        yield (
            f"a batch of {plan.batch_size:,} is more than the {plan.images:,} images: each step sees every image about "
            f"{plan.batch_size / plan.images:.3g} times; lower --batch-size"
        )
    if plan.steps < _FEW_STEPS:
        yield f"{plan.steps} steps are few to learn from; give more --epochs or --steps, or a smaller --batch-size"
    if plan.warmup_steps == plan.steps:
        yield (
            f"the whole run is warmup: its rate never falls and ends at {plan.highest_rate:.3g}, below its peak of "
            f"{plan.lr:.3g}; lower --schedule.warmup-epochs"
        )
    if plan.milestones and plan.milestones[-1] >= plan.steps:
        yield (
            "a milestone lies at the end of the run or after it, so the rate does not fall there; lower "
            "--schedule.milestones, or give more --epochs"
        )


def early_end(outcome: Outcome, plan: Plan, path: Path | None) -> str:
    """Why a run ended before its plan did, and what may be done about its rate; empty where it ran to the end.

    path: its folder, where this process holds it.
    """
    if not outcome.early:
        return ""
    said = f"ended at step {outcome.step:,} of {plan.steps:,}: {outcome.early}"
    rate = plan.learning_rate(outcome.step - 1) / plan.lr
    if rate < _FALLEN or path is None:
        return said
    said += f"; the rate is still {rate:.0%} of its peak"
    if plan.course == "constant" or (plan.cooldown and outcome.step <= plan.level_until):
        share = plan.cooldown or ScheduleConfig().cooldown
        course = plan.course if plan.cooldown else "cooldown"
        epochs = plan.epoch(outcome.step) / (1 - share)
        said += (
            f", and falls by: maekit pretrain {path}/config.json --branch {path}/checkpoints/step-{outcome.step} "
            f"--schedule.course {course} --epochs {epochs:.6g} --validation.stop-after None --out {path}-cooled"
        )
    elif not plan.cooldown:
        said += "; with --schedule.course cooldown a run can be let fall wherever it ends (docs/training.md)"
    return said


def restarted(run: RunConfig, world: World) -> RunConfig:
    """How a run goes on that torchrun has started again: from its newest sound checkpoint.

    It counts those after a failure (--max-restarts), and not those where a machine has come (--nnodes 1:2): then the
    folder's run is of a torchrun that is still at it. Raises UsageError where the folder would not be found again.
    """
    begun = False
    if world.is_first and run.out:
        with suppress(OSError, ValueError, KeyError, TypeError):  # no run, or one of before launchers were told
            recorded = json.loads((Path(run.out) / "config.json").read_text(encoding="utf-8"))
            begun = not world.launchers.isdisjoint(recorded["hardware"]["launchers"])
    if world.tell(begun) or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")):
        return replace(run, resume=True, overwrite=False)
    if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) and not run.out:
        raise UsageError("--out is missing: where a run goes on that torchrun starts again (--max-restarts)")
    return run


def _hardware(world: World) -> dict[str, Any]:
    """The device of a process, how many processes there are, and the cores of the machine of the first."""
    on_gpu = world.device.type == "cuda"
    name = torch.cuda.get_device_name(world.device) if on_gpu else platform.processor() or platform.machine()
    return {"device": world.device.type, "name": name, "processes": world.size, "cores": os.cpu_count(),
            "launchers": sorted(world.launchers)}  # fmt: skip


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _RECORDED:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def _git_state() -> dict[str, Any] | None:
    """Commit and whether files differ from it, of the folder the command runs in; None outside a repository."""

    def ask(*words: str) -> str:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "modified": bool(ask("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None
