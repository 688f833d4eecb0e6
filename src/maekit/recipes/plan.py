"""What a pretraining on many GPUs would take, before anything is bought: an estimate, of which no part is trained.

Images, steps and rates are what the run would have. Memory and GFLOP are counted on tensors without data. How fast it
goes is not known beforehand: it is stated, or measured on the machine at hand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import torch

from maekit import parts
from maekit.config import PlanConfig, ValidationConfig
from maekit.config.beforehand import undivided
from maekit.data.loader import Batch
from maekit.data.sources import open_source
from maekit.engine import footprint
from maekit.engine.footprint import Footprint
from maekit.engine.progress import duration
from maekit.engine.schedule import Plan
from maekit.errors import MaekitError, ModelError
from maekit.models import mae
from maekit.models.cost import forward_gflop, parameter_count
from maekit.recipes import planning, suggest
from maekit.recipes.pretrain import PretrainTask
from maekit.results import Planned
from maekit.sections import Facts, Section, Table, Text

_KEPT_FREE = 0.1, 1.0  # a share of the memory, and GB: for driver, NCCL, gaps between tensors
_PASSES = 8  # that are measured
_RECOMPUTE = "--run.checkpoint-activations"


@dataclass(frozen=True)
class _Way:
    """One way to spread the run, and what a GPU holds then."""

    config: PlanConfig
    plan: Plan
    parallel: str
    recomputes: bool

    @property
    def asked(self) -> bool:
        """Whether it is that of the config."""
        run = self.config.run
        return (self.parallel, self.recomputes) == (run.parallel, run.checkpoint_activations)

    @property
    def words(self) -> list[str]:
        """The options that it needs beside those of the config; empty where it is the config's own."""
        run = self.config.run
        other = [f"--run.parallel {self.parallel}"] if self.parallel != run.parallel else []
        return other + ([_RECOMPUTE] if self.recomputes and not run.checkpoint_activations else [])

    @property
    def footprint(self) -> Footprint:
        """With the plan's images a pass."""
        plan = self.plan
        held = plan.accumulation > 1 or (self.parallel == "ddp" and plan.world_size > 1)
        return _counted(self, plan.micro_batch, held=held)

    def most_images(self, room: float) -> int | None:
        """The most images a pass that fit into so many GB and divide the GPU's share of a step; None: not even one.

        Memory grows by the same for each image, so two numbers of images tell it of all.
        """
        share, micro = self.plan.batch_size // self.plan.world_size, self.plan.micro_batch
        few, many = max(1, micro // 2), max(2, micro)
        less, more = (_counted(self, images, held=True).total for images in (few, many))
        each = (more - less) / (many - few)
        divisors = [images for images in range(1, share + 1) if share % images == 0]
        return max((images for images in divisors if less + (images - few) * each <= room * 1e9), default=None)

    def task(self) -> PretrainTask:
        """A task over a model that has shapes alone."""
        model = _model(self.config, self.config.model.image_hw)
        model.recompute_activations(self.recomputes)
        return PretrainTask(model, seed=self.config.run.seed)


@lru_cache(maxsize=16)
def _counted(way: _Way, images: int, *, held: bool) -> Footprint:
    """With so many images a pass. held: as `footprint.whole` has it."""
    config, batch = way.config, _batch(way.config, images)
    run = replace(config.run, precision=_precision(config))
    how: dict[str, Any] = {"optimizer": config.optimizer, "run": run, "held": held}
    try:
        if way.parallel == "fsdp":
            return footprint.divided(way.task, batch, processes=config.gpus, **how)
        return footprint.whole(way.task, batch, **how)
    except MaekitError:
        raise
    except Exception as error:
        if not _own_parts(config):
            raise
        raise ModelError(
            "memory cannot be counted: a part of your own does not work on tensors that have no data "
            f"({type(error).__name__}: {str(error).partition(chr(10))[0]}); leave it out of the plan"
        ) from error


def run(config: PlanConfig) -> Planned:
    """`maekit plan`. Raises what opening the source, planning and building raise."""
    parts.say(*config.run.parts, *_own_parts(config))
    images = config.images or len(open_source(config.data.source, config.data.image_column))
    images -= round(images * (config.validation.split or 0))
    schedule, because = config.schedule, ""
    if schedule.batch_size is None:
        batch = schedule.fitting_batch(images, config.gpus, on_cpu=False)
        because = planning.why_batch(batch, schedule, images, on_cpu=False)
        schedule = replace(schedule, batch_size=batch)
    alone = replace(config.run, parallel="ddp")  # of one GPU, which divides nothing
    config = replace(config, schedule=schedule, run=config.run if config.gpus > 1 else alone)
    plan = Plan.of(config.optimizer, schedule, images, config.gpus, because)
    model = _model(config, config.model.image_hw)
    gflop = 3 * _gflop(config, plan, model)
    ways = [
        _Way(config, plan, parallel, recomputes)
        for parallel in (("ddp",) if config.gpus == 1 or undivided(config) else ("ddp", "fsdp"))
        for recomputes in (False, True)
    ]
    asked, whole = next(way for way in ways if way.asked), ways[0].footprint
    memory = [_as_plain(way, config.memory) for way in ways]
    rate = config.rate
    if config.measure:  # the run without its looks at held-out images
        rate = suggest.timed_passes(replace(config, validation=ValidationConfig()), plan.micro_batch, _PASSES)[0]
    hours = None if rate is None else plan.steps * plan.batch_size / (rate * config.gpus) / 3600
    said = Planned(
        preset=config.name, estimate=_basis(config), images=images, steps=plan.steps, epochs=plan.epoch(plan.steps),
        warmup_steps=plan.warmup_steps, gpus=config.gpus, batch_size=plan.batch_size, micro_batch_size=plan.micro_batch,
        accumulation=plan.accumulation, lr=plan.lr, base_lr=plan.base_lr, parameters=parameter_count(model),
        encoder_parameters=parameter_count(model.encoder), gflop=gflop,
        exaflop=gflop * plan.steps * plan.batch_size / 1e9, precision=_precision(config),
        checkpoint_gb=(whole.weights + whole.moments) / 1e9, memory=memory,
        fits=None if config.memory is None else memory[ways.index(asked)]["fits"],
        advice=[] if config.memory is None else _advice(plan, ways, memory),
        images_per_second=rate, hours=hours, gpu_hours=None if hours is None else hours * config.gpus,
    )  # fmt: skip
    return replace(said, sections=_sections(said, config, plan))


def _model(config: PlanConfig, image_hw: tuple[int, int]) -> mae.MaskedAutoencoder:
    """On the meta device; where parts of the user's own try themselves out as they are built, for real."""
    middle = (0.5,) * config.model.channels
    model = replace(config.model, image_size=image_hw)
    with torch.device("cpu" if _own_parts(config) else "meta"):
        return mae.build(model, config.target, config.mask, middle, middle, seed=config.run.seed)


def _own_parts(config: PlanConfig) -> list[str]:
    names = config.model.encoder.rpartition(":")[0], config.mask.kind, config.target.kind, config.target.loss
    return [name for name in names if parts.is_part(name)]


def _batch(config: PlanConfig, images: int) -> Batch:
    pixels = torch.zeros(images, config.model.channels, *config.model.image_hw, dtype=torch.uint8)
    numbers = torch.arange(images)
    return Batch(pixels, numbers, numbers, numbers * 0, numbers * 0)


def _precision(config: PlanConfig) -> Literal["fp32", "bf16", "fp16"]:
    """That of a GPU with bf16, where the config leaves it open."""
    return "bf16" if config.run.precision == "auto" else config.run.precision


def _gflop(config: PlanConfig, plan: Plan, model: mae.MaskedAutoencoder) -> float:
    """Forward, of the mean image of the run, which may begin with smaller ones."""
    stages = config.schedule.sizes(config.model.image_hw, plan.steps)
    work = [
        (until - first) * forward_gflop(_model(config, hw) if hw != config.model.image_hw else model)
        for first, until, hw in stages
    ]
    return sum(work) / plan.steps


def _as_plain(way: _Way, memory: float | None) -> dict[str, Any]:
    counted = way.footprint
    gigabytes = {name: value / 1e9 for name, value in asdict(counted).items()} | {"total": counted.total / 1e9}
    plain = {"parallel": way.parallel, "checkpoint_activations": way.recomputes, "asked": way.asked, **gigabytes}
    if memory is None:
        return plain
    room = _room(memory)
    return plain | {"fits": plain["total"] <= room, "largest_micro_batch_size": way.most_images(room)}


def _room(memory: float) -> float:
    share, gigabytes = _KEPT_FREE
    return memory * (1 - share) - gigabytes


def _advice(plan: Plan, ways: Sequence[_Way], memory: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each line enough by itself; smaller passes cost next to nothing, to recompute a third of the time."""
    asked = next(row for row in memory if row["asked"])
    if asked["fits"]:
        return []
    found = []
    if most := asked["largest_micro_batch_size"]:
        found.append(f"--micro-batch-size {most}: {plan.batch_size // (plan.world_size * most)} passes a step")
    for way, row in zip(ways, memory, strict=True):
        most = row["largest_micro_batch_size"]
        if way.asked or not way.words or not (row["fits"] or (most or 0) > (asked["largest_micro_batch_size"] or 0)):
            continue
        smaller = [] if row["fits"] else [f"--micro-batch-size {most}"]
        costs = [cost for words, cost in _COSTS.items() if any(words in word for word in way.words)]
        found.append(f"{' '.join([*way.words, *smaller])}: {', and '.join(costs)}")
    return found


_COSTS = {"parallel fsdp": "weights are sent block by block", _RECOMPUTE: "about a third more time"}


def _basis(config: PlanConfig) -> dict[str, str]:
    """On what each part of the estimate rests."""
    said = {
        "steps": "computed, as the run would",
        "gflop": "counted by torch on the meta device; backward taken as twice forward",
        "memory": "counted by torch on tensors without data, by a CPU's kernels; fsdp's whole blocks by rule",
    }
    if config.memory is not None:
        said["fits"] = "a tenth of the memory and 1 GB are left free, a rule of thumb"
    if config.rate or config.measure:
        where = f"measured on this machine by {_PASSES} passes" if config.measure else "stated by you, not measured"
        said["hours"] = f"images a second of one GPU {where}, times {config.gpus:,}: nothing lost between GPUs, nor by "
        said["hours"] += "reading, looks at held-out images, checkpoints"
    return said


def _sections(said: Planned, config: PlanConfig, plan: Plan) -> list[Section]:
    height, width = config.model.image_hw
    rest = said.parameters - said.encoder_parameters
    facts = {
        "images": f"{said.images:,}" + (f": {config.data.source}" if not config.images else ""),
        "model": f"{config.model.encoder} at {height}x{width}x{config.model.channels}, "
        f"{said.encoder_parameters / 1e6:.2f} M parameters and {rest / 1e6:.2f} M beside the encoder",
        "batch": ", ".join(part for part in (f"{plan.batch_size:,}", plan.batch_because) if part),
        "passes": f"{_count(said.gpus, 'GPU')} x {_count(plan.micro_batch, 'image')} x "
        f"{_count(plan.accumulation, 'pass')} a step, {said.precision}",
        "rate": f"{plan.lr:.3g} at its peak, {plan.base_lr:.3g} per 256 images",
        "steps": f"{plan.steps:,} ({said.epochs:.4g} epochs), {plan.warmup_steps:,} of them warmup",
        "work": f"{said.gflop:.3g} GFLOP in training an image, {said.exaflop:.3g} EFLOP in all",
        "checkpoint": f"{said.checkpoint_gb:.3g} GB, every {config.run.resolved_checkpoint_every(plan.steps):,} steps",
    }
    if said.hours is None:
        facts["time"] = "not known: give --rate, images a second of one GPU, or --measure"
    else:
        assert said.images_per_second is not None
        how = "measured here" if config.measure else "as stated"
        facts["time"] = (
            f"about {duration(3600 * said.hours)}, {said.gpu_hours:,.3g} GPU hours, by {said.images_per_second:,.3g} "
            f"images/s a GPU, {how}, which is {said.images_per_second * said.gflop / 1e3:,.3g} TFLOP/s"
        )
    sections: list[Section] = [
        Text(f"an estimate, by calculation, of maekit pretrain {said.preset}"),
        Facts([*facts.items()]),
        _table(said),
    ]
    if config.memory is not None:
        sections.append(Text(_verdict(said, config.memory)))
    basis = [f"{name}: {words}" for name, words in said.estimate.items()]
    return [*sections, Text("\n".join(["what it rests on", *(f"  {line}" for line in basis)]))]


def _table(said: Planned) -> Table:
    names = ["weights", "gradients", "moments", "activations", "gathered", "total"]
    headers = ["GB a GPU", *names]
    rows = []
    for row in said.memory:
        how = row["parallel"] if said.gpus > 1 else "one GPU"
        how += f" {_RECOMPUTE}" * row["checkpoint_activations"] + " (as asked)" * row["asked"]
        cells = [how, *(_gigabytes(row[name]) for name in names)]
        if "fits" in row:
            most = row["largest_micro_batch_size"]
            cells += ["yes" if row["fits"] else "no", "none" if most is None else f"{most:,}"]
        rows.append(cells)
    if said.fits is not None:
        headers += ["fits", "largest micro batch"]
    return Table(headers, rows)


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" + ("" if number == 1 else "es" if thing.endswith("s") else "s")


def _gigabytes(value: float) -> str:
    return f"{value:.2f}" if value >= 1 or not value else f"{value:.2g}"


def _verdict(said: Planned, memory: float) -> str:
    total = next(row["total"] for row in said.memory if row["asked"])
    room = f"{total:.1f} GB of {memory:g}, of which {max(0.0, _room(memory)):.1f} are counted on"
    if said.fits:
        return f"fits: {room}"
    if not said.advice:
        return f"does not fit: {room}; nor does one image by any of these ways: more GPUs, a smaller model or images"
    return "\n".join([f"does not fit: {room}; each of these does", *(f"  {line}" for line in said.advice)])
