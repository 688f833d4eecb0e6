"""The batch of a run that was not told one."""

import json
from dataclasses import replace
from pathlib import Path

from maekit.config import OptimizerConfig, RunConfig, ScheduleConfig
from maekit.engine.distributed import World
from maekit.engine.schedule import Plan


def planned(
    schedule: ScheduleConfig, optimizer: OptimizerConfig, run: RunConfig, images: int, world: World
) -> tuple[ScheduleConfig, Plan]:
    """The schedule with its batch as a number, so that config.json says what ran, and the run in numbers.

    Where none is given it is that of the run that is resumed, else what fits the images and the device.
    """
    because = ""
    if schedule.batch_size is None:
        batch = world.tell(_batch_of_resumed(run) if world.is_first else None)
        if batch is None:
            on_cpu = world.device.type == "cpu"
            batch = schedule.fitting_batch(images, world.size, on_cpu=on_cpu)
            because = why_batch(batch, schedule, images, on_cpu)
        schedule = replace(schedule, batch_size=batch)
    return schedule, Plan.of(optimizer, schedule, images, world.size, because)


def _batch_of_resumed(run: RunConfig) -> int | None:
    """The batch that the run began with which is resumed, by its config.json; None where there is none to be read."""
    if not (run.resume and run.out):
        return None
    try:
        ran = json.loads((Path(run.out) / "config.json").read_text(encoding="utf-8"))
        batch = ran["config"]["schedule"]["batch_size"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return batch if isinstance(batch, int) else None


def why_batch(batch: int, schedule: ScheduleConfig, images: int, on_cpu: bool) -> str:
    """Why a chosen batch is not the recipe's; empty where it is."""
    recipe = schedule.recipe_batch_size
    if batch == recipe:
        return ""
    reasons = []
    if schedule.fitting_batch(images, 1, on_cpu=False) != recipe:
        reasons.append(f"here are {images:,} images, not the {schedule.recipe_images:,} it is made for")
    if on_cpu and schedule.fitting_batch(schedule.recipe_images, 1, on_cpu=True) != recipe:
        reasons.append("a CPU is no faster in larger ones")
    return f"not the recipe's {recipe:,}: {', and '.join(reasons)}; give --batch-size {recipe} to have it"
