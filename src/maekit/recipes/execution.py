"""What every recipe does around its training: the run folder, what ran written down, the header, the weights."""

import datetime
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import torch

from maekit.config import ClassifyConfig, ModelConfig, PretrainConfig, RunConfig, files
from maekit.config.data import crop_share_for
from maekit.data.loader import BadImages, Batch, train_batches
from maekit.data.ranges import resolved, say_little_use
from maekit.data.sources import Source, open_source
from maekit.data.sources.held_out import hold_out, say_shared
from maekit.engine.distributed import World, join
from maekit.engine.loop import Outcome
from maekit.engine.precision import Precision
from maekit.engine.run_state import RunFolder, open_run
from maekit.engine.schedule import Plan
from maekit.errors import UsageError
from maekit.models.cost import forward_gflop, parameter_count
from maekit.models.encoder import ImageEncoder
from maekit.weights import native
from maekit.weights.load import describe

log = logging.getLogger("maekit")
Recipe = TypeVar("Recipe", PretrainConfig, ClassifyConfig)

_RECORDED = ("maekit", "torch", "torchvision", "timm", "numpy", "pillow", "simplejpeg", "tifffile")


@contextmanager
def join_world(config: RunConfig) -> Iterator[World]:
    """The processes that train together."""
    with join(config.device, config.hang_timeout) as world:
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


def with_range(config: Recipe, source: Source) -> Recipe:
    """The config with the range of stored values as numbers, so that a run and its resumption see the same.

    Where none is asked for, that of the weights it starts from, which is said; other numbers than theirs are warned of.
    """
    given, model = config.data.range, config.model
    theirs = None
    if config.weights:
        blueprint = describe(config.weights)
        theirs, model = blueprint.value_range, model or blueprint.model
    if model is None:
        return config
    chosen = resolved(given, source, model.channels, workers=config.data.workers)
    if theirs is not None and chosen is None:
        log.info("range: %g to %g become black to white, as for %s", *theirs, config.weights)
        chosen = theirs
    elif config.weights and chosen is not None and chosen != theirs:
        known = "all that their type can hold" if theirs is None else f"{theirs[0]:g} to {theirs[1]:g}"
        log.warning("%s: saw stored values of %s as black to white, not of %g to %g", config.weights, known, *chosen)
    if chosen is None:
        say_little_use(
            source, model.channels, "--data.range measured, or --data.range {low} {high}, spreads them over all"
        )
    return replace(config, data=replace(config.data, range=chosen))


def open_sources(config: Recipe, world: World) -> tuple[Source, Source | None]:
    """The images to learn from and those to judge by, if there are any."""
    data, validation = config.data, config.validation
    if validation.source and validation.split is not None:
        raise UsageError("validation.split: validation.source names the images to judge by; take one of them")

    def opened() -> tuple[Source, Source | None]:
        train = open_source(data.source, data.image_column)
        if validation.split is not None:
            return hold_out(train, validation.split, config.run.seed)
        return train, open_source(validation.source, data.image_column) if validation.source else None

    return world.patiently(opened)


def warn_of_shared(train: Source, val: Source, world: World) -> None:
    """Say where images that are judged by are learned from too."""
    world.patiently(lambda: say_shared(train, val) if world.is_first else 0)


def with_crop_share(config: Recipe, image_hw: tuple[int, int]) -> Recipe:
    """The config with the share of the centre crop as a number, by the images' size where none is asked for."""
    share = config.validation.crop_share or crop_share_for(image_hw)
    return replace(config, validation=replace(config.validation, crop_share=share))


def training_batches(
    config: Any, model: ModelConfig, source: Source, plan: Plan, start: int, world: World, bad: BadImages
) -> Iterator[Batch]:
    """This rank's micro-batches from step `start` on, by the data, augment and run groups of a recipe's config."""
    return train_batches(
        source,
        config.data,
        config.augment,
        image_hw=model.image_hw,
        channels=model.channels,
        seed=config.run.seed,
        batch_size=plan.batch_size,
        micro_batch=plan.micro_batch,
        start_step=start,
        total_steps=plan.steps,
        rank=world.rank,
        world_size=world.size,
        bad=bad,
    )


def steps_of(epochs: float, plan: Plan) -> int:
    """The steps nearest to so many epochs, at least one."""
    return max(1, round(epochs * plan.images / plan.batch_size))


def write_down(
    folder: RunFolder | None, config: Any, source: Source, fingerprint: str, plan: Plan, world: World
) -> None:
    """config.json: what runs, on which data, on which hardware, with which versions."""
    if folder is None:
        return
    folder.write_config(
        {
            "config": files.to_dict(config),
            "data": {"source": source.text, "images": len(source), "classes": source.classes and len(source.classes),
                     "fingerprint": fingerprint, "passed_over": source.passed_over.as_dict()},
            "computed": {"steps": plan.steps, "warmup_steps": plan.warmup_steps, "lr": plan.lr, "base_lr": plan.base_lr,
                         "micro_batch": plan.micro_batch, "accumulation": plan.accumulation,
                         "world_size": plan.world_size},
            "hardware": _hardware(world),
            "versions": _versions(),
            "git": _git_state(),
            "command": sys.argv,
        }
    )  # fmt: skip


def print_header(
    verb: str, config: Any, model: ImageEncoder, source: Source, plan: Plan, world: World, folder: RunFolder | None
) -> None:
    """What is about to happen, before the first step."""
    if folder is None:
        return
    gflop = forward_gflop(model)
    rest = parameter_count(model) - parameter_count(model.encoder)
    classes = f"{len(source.classes)} classes" if source.classes else "unlabelled"
    height, width = model.config.image_hw
    precision = Precision(config.run.precision, world.device).name
    lines = {
        "run": str(folder.path),
        "data": f"{len(source)} images, {classes}: {source.text}",
        "model": f"{model.config.encoder} at {height}x{width}x{model.config.channels}, "
        f"{parameter_count(model.encoder) / 1e6:.2f} M parameters and {rest / 1e6:.2f} M beside the encoder",
        "work": f"{gflop:.3g} GFLOP forward and {3 * gflop:.3g} in training an image",
        "batch": ", ".join(part for part in (f"{plan.batch_size:,}", plan.batch_because) if part),
        "passes": f"{plan.world_size} devices x {plan.micro_batch} images x {plan.accumulation} passes a step",
        "rate": f"{plan.lr:.3g} at its peak, {plan.base_lr:.3g} per 256 images",
        "steps": f"{plan.steps} ({plan.epoch(plan.steps):.4g} epochs), {plan.warmup_steps} of them warmup",
        "device": f"{world.device}, {precision}",
    }
    if model.value_range is not None:
        low, high = model.value_range
        lines["range"] = f"stored values of {low:g} to {high:g} are black to white"
    if config.weights:
        meaning = "; the preset is the recipe alone" if verb == "finetune" else ""
        lines["weights"] = f"{config.weights}, whose model it is{meaning}"
    log.info("maekit %s %s", verb, config.name)
    for name, value in lines.items():
        log.info("  %-8s%s", name, value)
    for warning in _warnings(plan, config):
        log.warning("%s", warning)


_FEW_STEPS = 100
_FAR_FEWER = 100  # times


def _warnings(plan: Plan, config: PretrainConfig | ClassifyConfig) -> Iterator[str]:
    """What a person should know of a run before it takes its time, each with what to change."""
    made_for = config.schedule.recipe_images
    if isinstance(config, PretrainConfig) and not config.weights and plan.images * _FAR_FEWER < made_for:
        yield (
            f"{plan.images:,} images are few to start from nothing with a recipe for {made_for:,}: "
            "vit-tiny-small-data is made for so few, or go on from weights by --weights"
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


def write_weights(folder: RunFolder, model: native.Model, averaged: Mapping[str, torch.Tensor] | None) -> None:
    """model.safetensors, and model_ema.safetensors where an average was kept."""
    from maekit import storage

    native.save(model, folder.path / "model.safetensors")
    if averaged is not None:
        storage.write_tensors(folder.path / "model_ema.safetensors", averaged, native.metadata(model))


def count_unreadable(bad: BadImages, world: World) -> int:
    """How many images any process could not read; all processes ask together. Since the start, or the resuming."""
    (indices,) = world.gather_rows(torch.tensor(bad.indices(), dtype=torch.int64))
    count = len(indices.unique())
    if count:
        log.warning("%d images of %s could not be read; log.txt names them", count, bad.source.text)
    return count


def answer(folder: RunFolder | None, outcome: Outcome, unreadable: int, source: Source) -> dict[str, Any]:
    """What the command line says at the end: {run, steps, unreadable, passed_over, loss, ...}."""
    values = {name: value for name, value in outcome.record.items() if name not in ("step", "epoch")}
    run = str(folder.path) if folder else None
    left = source.passed_over.as_dict()
    return {"run": run, "steps": outcome.step, "unreadable": unreadable, "passed_over": left, **values}


def _hardware(world: World) -> dict[str, Any]:
    """The device of a process, how many processes there are, and the cores of the machine of the first."""
    on_gpu = world.device.type == "cuda"
    name = torch.cuda.get_device_name(world.device) if on_gpu else platform.processor() or platform.machine()
    return {"device": world.device.type, "name": name, "processes": world.size, "cores": os.cpu_count()}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _RECORDED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
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
