"""The one sequence of every training: open the data, settle what was left open, build, train, write down what came."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch

from maekit import parts, storage
from maekit.config import ClassifyConfig, DataConfig, PretrainConfig, files
from maekit.config.data import crop_share_for
from maekit.data.loader import BadImages, Batch, train_batches
from maekit.data.ranges import known_range, resolved, say_little_use
from maekit.data.sources import Source, Space, in_any_order, open_source
from maekit.data.sources.held_out import hold_out, say_shared
from maekit.data.sources.source import full_fingerprint
from maekit.data.transforms import TrainTransform
from maekit.engine import loop, memory
from maekit.engine.distributed import World
from maekit.engine.drift import identity
from maekit.engine.patience import Patience
from maekit.engine.precision import Precision
from maekit.engine.run_state import RunFolder
from maekit.engine.task import Task
from maekit.errors import UsageError
from maekit.models.cost import forward_gflop, parameter_count
from maekit.models.encoder import ImageEncoder
from maekit.recipes import execution, planning
from maekit.weights.load import describe, load

log = logging.getLogger("maekit")

_LARGE = 50_000  # bytes: images that are worth packing

Recipe = TypeVar("Recipe", PretrainConfig, ClassifyConfig)
Model = TypeVar("Model", bound=ImageEncoder)


class Training(ABC, Generic[Recipe, Model]):
    """A run of a recipe. What differs between recipes stands in their subclasses; the order of things stands here.

    Attributes: `config`, complete as it is written down; `source` and `held_out`; `plan`; `bad`, what is known of
    unreadable training images; `model`, told how its images are seen; `stages`, from and until which step training
    images have which size; `world`.
    """

    verb: str
    best_by: ClassVar[str | None] = None
    """Name in a validation whose highest value earns best.safetensors."""

    def __init__(self, config: Recipe, world: World) -> None:
        self.config: Recipe = config
        self.world = world
        parts.say(*config.run.parts)
        if config.model is not None:
            parts.say(config.model.encoder.rpartition(":")[0])
        self.source, self.held_out = self.chosen(*world.patiently(self._opened))
        if self.held_out is not None:
            train, val = self.source, self.held_out
            world.patiently(lambda: say_shared(train, val) if world.is_first else 0)
        data, run = self._with_range(), config.run
        schedule, self.plan = planning.planned(config.schedule, config.optimizer, run, len(self.source), world)
        self.config = replace(config, data=data, schedule=schedule)
        self.bad = BadImages(self.source, data.bad_share)
        self.model = self.build()
        share = config.validation.crop_share or crop_share_for(self.model.config.image_hw)
        self.config = replace(self.config, validation=replace(config.validation, crop_share=share))
        self.model.crop_share, self.model.value_range = share, known_range(data.range)
        self.model.recompute_activations(run.checkpoint_activations)
        self.stages = schedule.sizes(self.model.config.image_hw, self.plan.steps)
        if config.augment.own:  # before workers do, whose mistakes come late
            height, width = self.model.config.image_hw
            noise = torch.randint(256, (self.model.config.channels, height, width), dtype=torch.uint8)
            TrainTransform(config.augment, (height, width))(noise, 0, 0, 0, 0)
        self.task = self.make_task()

    @abstractmethod
    def chosen(self, train: Source, held_out: Source | None) -> tuple[Source, Source | None]:
        """Which of the opened images are used, as this recipe sees them. Raises where they will not do."""

    @abstractmethod
    def build(self) -> Model:
        """The model that training starts from."""

    @abstractmethod
    def make_task(self) -> Task:
        """What turns batches into a loss for the model."""

    @abstractmethod
    def steps_between(self) -> int | None:
        """Steps between two validations; None: there are none."""

    def looks_at(self) -> list[int]:
        """The steps after which `look` is called; 0: before the first."""
        return []

    def look(self, folder: Path | None, step: int) -> None:
        """Keep for the report, where this process holds the folder, how the model does at this step."""

    def patience(self) -> Patience | None:
        """What ends the run before its plan does; None: nothing."""
        return None

    @abstractmethod
    def finish(self, record: dict[str, Any], folder: Path | None) -> None:
        """A last look at the trained model, and its report where this process holds the folder.

        record: the history's last line.
        """

    def run(self) -> dict[str, Any]:
        """Train; returns {run, steps, unreadable, passed_over, loss, ...}, and leaves a run folder."""
        config, source, plan, world = self.config, self.source, self.plan, self.world
        with (
            execution.hold_folder(config.run, config.name, world) as folder,
            memory.explained(plan, config.run, self.model.config.image_hw, world.device),
        ):
            known = partial(full_fingerprint, source) if config.data.fingerprint == "full" else source.fingerprint
            fingerprint = world.tell(world.patiently(lambda: known() if world.is_first else ""))
            settings = files.to_dict(config)
            gflop = None
            if folder is not None:
                gflop, mean = self._work()
                folder.write_config(execution.record(settings, source, fingerprint, plan, world, 3 * mean))
                self._say_header(folder.path, gflop, mean / gflop)
            outcome = loop.train(
                self.task,
                self._batches,
                plan=plan,
                optimizer=config.optimizer,
                config=config.run,
                world=world,
                folder=folder,
                facts={"identity": identity(settings, fingerprint)},
                evaluate_every=self.steps_between(),
                best_by=self.best_by,
                patience=self.patience(),
                at_log_points=lambda: self.bad.share(world.gather),
                looks={
                    step: partial(self.look, None if folder is None else folder.path, step) for step in self.looks_at()
                },
                gflop=None if gflop is None else 3 * gflop,
                advice=self._faster_images(),
            )
            self.bad.share(world.gather)
            if unreadable := len(self.bad):
                log.warning("%d images of %s could not be read; log.txt names them", unreadable, source.text)
            early = execution.early_end(outcome, plan, None if folder is None else folder.path)
            if early and world.is_first:
                log.info("%s", early)
            if folder is not None:
                task, path = self.task, folder.path
                storage.write_tensors(path / "model.safetensors", outcome.weights, task.metadata())
                if outcome.averaged is not None:
                    storage.write_tensors(path / "model_ema.safetensors", outcome.averaged, task.average_metadata())
            if config.run.parallel == "fsdp" and world.size > 1:
                self._reopen(folder)
            self.finish(outcome.record, None if folder is None else folder.path)
        values = {name: value for name, value in outcome.record.items() if name not in ("step", "epoch")}
        where, left = None if folder is None else str(folder.path), source.passed_over.as_dict()
        return {"run": where, "steps": outcome.step, "unreadable": unreadable, "passed_over": left,
                "ended_early": early or None, **values}  # fmt: skip

    def _reopen(self, folder: RunFolder | None) -> None:
        """Take the trained weights from the run folder: those in memory are divided between the processes."""
        path = self.world.tell("" if folder is None else str(folder.path))  # told once they are written
        model: Any = self.world.patiently(lambda: load(path))
        self.model = self.task.model = model.to(self.world.device)

    def steps_of(self, epochs: float) -> int:
        """The steps nearest to so many epochs, at least one."""
        return max(1, round(epochs * self.plan.images / self.plan.batch_size))

    def _opened(self) -> tuple[Source, Source | None]:
        """The images to learn from and those to judge by, if there are any."""
        data, validation = self.config.data, self.config.validation
        if validation.source and validation.split is not None:
            raise UsageError("validation.split: validation.source names the images to judge by; take one of them")
        space = Space(data.cache_limit, data.window)
        train = open_source(data.source, data.image_column, space)
        if data.shuffle:
            in_any_order(train, data.cache_limit * 1e9)
        if validation.split is not None:
            return hold_out(train, validation.split, self.config.run.seed)
        return train, open_source(validation.source, data.image_column, space) if validation.source else None

    def _with_range(self) -> DataConfig:
        """The data's options with the range of stored values as numbers, so that a run and its resumption see the same.

        Where none is asked for, that of the weights it starts from, which is said; other numbers than theirs are warned
        of.
        """
        data, model, weights, source = self.config.data, self.config.model, self.config.weights, self.source
        theirs = None
        if weights:
            blueprint = describe(weights)
            theirs, model = blueprint.value_range, model or blueprint.model
        if model is None:
            return data
        chosen = resolved(data.range, source, model.channels, workers=data.workers)
        if theirs is not None and chosen is None:
            log.info("range: %g to %g become black to white, as for %s", *theirs, weights)
            chosen = theirs
        elif weights and chosen is not None and chosen != theirs:
            known = "all that their type can hold" if theirs is None else f"{theirs[0]:g} to {theirs[1]:g}"
            log.warning("%s: saw stored values of %s as black to white, not of %g to %g", weights, known, *chosen)
        if chosen is None:
            say_little_use(
                source, model.channels, "--data.range measured, or --data.range {low} {high}, spreads them over all"
            )
        return replace(data, range=chosen)

    def _batches(self, start: int) -> Iterator[Batch]:
        """This process's micro-batches from step `start` on."""
        config, plan = self.config, self.plan
        for first, until, image_hw in self.stages:
            if start < until:
                yield from train_batches(
                    self.source,
                    config.data,
                    config.augment,
                    image_hw=image_hw,
                    channels=self.model.config.channels,
                    seed=config.run.seed,
                    batch_size=plan.batch_size,
                    micro_batch=plan.micro_batch,
                    start_step=max(start, first),
                    total_steps=until,
                    rank=self.world.rank,
                    world_size=self.world.size,
                    bad=self.bad,
                )

    def _faster_images(self) -> str:
        """What to do where training waits for images; nothing for the embedded ones, whose steps are as short."""
        data, typical = self.config.data, self.source.size(len(self.source) // 2)
        if data.source.startswith("digits:"):
            return ""
        more = "--workers 1 or more" if data.workers == 0 else "more --workers, where there are cores"
        once = f", or `maekit pack {data.source} --out FOLDER` once, and train on that"
        return more + (once if typical > _LARGE else "")

    def _work(self) -> tuple[float, float]:
        """GFLOP of an image's forward pass: of whole size, and the mean over all steps."""
        whole, others = forward_gflop(self.model), getattr(self.model, "others", {})
        of_size = {hw: forward_gflop(model) for hw, model in others.items()}
        work = sum((until - first) * of_size.get(hw, whole) for first, until, hw in self.stages)
        return whole, work / self.plan.steps

    def _say_header(self, path: Path, gflop: float, share: float) -> None:
        """What is about to happen, before the first step. share: of the work of a run at whole size."""
        config, model, source, plan = self.config, self.model, self.source, self.plan
        rest = parameter_count(model) - parameter_count(model.encoder)
        classes = f"{len(source.classes)} classes" if source.classes else "unlabelled"
        height, width = model.config.image_hw
        precision = Precision(config.run.precision, self.world.device).name
        lines = {
            "run": str(path),
            "data": f"{len(source)} images, {classes}: {source.text}",
            "model": f"{model.config.encoder} at {height}x{width}x{model.config.channels}, "
            f"{parameter_count(model.encoder) / 1e6:.2f} M parameters and {rest / 1e6:.2f} M beside the encoder",
            "work": f"{gflop:.3g} GFLOP forward and {3 * gflop:.3g} in training an image",
            "batch": ", ".join(part for part in (f"{plan.batch_size:,}", plan.batch_because) if part),
            "passes": f"{plan.world_size} devices x {plan.micro_batch} images x {plan.accumulation} passes a step",
            "rate": f"{plan.lr:.3g} at its peak, {plan.base_lr:.3g} per 256 images",
            "steps": f"{plan.steps} ({plan.epoch(plan.steps):.4g} epochs), {plan.warmup_steps} of them warmup"
            + (f", cooldown from step {plan.level_until} on" if plan.cooldown else ""),
            "device": f"{self.world.device}, {precision}",
        }
        if self.stages[:-1]:
            ends = ", ".join(f"{h}x{w} until step {until}" for _, until, (h, w) in self.stages)
            lines["sizes"] = f"{ends}: {share:.0%} of the work; time and memory below are of the first"
        if model.value_range is not None:
            low, high = model.value_range
            lines["range"] = f"stored values of {low:g} to {high:g} are black to white"
        if config.weights:
            meaning = "; the preset is the recipe alone" if self.verb == "finetune" else ""
            lines["weights"] = f"{config.weights}, whose model it is{meaning}"
        log.info("maekit %s %s", self.verb, config.name)
        for name, value in lines.items():
            log.info("  %-8s%s", name, value)
        for warning in execution.warnings(
            plan, config.schedule, from_nothing=self.verb == "pretrain" and not config.weights
        ):
            log.warning("%s", warning)


def run(kind: type[Training[Recipe, Any]], config: Recipe) -> dict[str, Any]:
    """Train as a config says, in as many processes as there are; see `Training.run`."""
    with execution.join_world(config.run) as world:
        return kind(replace(config, run=execution.restarted(config.run, world)), world).run()
