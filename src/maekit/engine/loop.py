"""The training loop: every task is trained by `train`, and by nothing else.

The loop knows neither models nor data. A Task turns a batch into a loss; batches come in order from any step; the state
of a run is its step, the weights, the optimizer and what the precision keeps. Nothing waits for the device but at log
points, checkpoints and validations.
"""

import contextlib
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from maekit import storage
from maekit.config import OptimizerConfig, RunConfig
from maekit.engine import branch, checkpoints, compiled, memory, metrics, sharding
from maekit.engine import optimizer as optimizers
from maekit.engine.best import Best
from maekit.engine.distributed import World, parallel
from maekit.engine.drift import refuse_drift
from maekit.engine.ema import Ema
from maekit.engine.metrics import History, Record
from maekit.engine.patience import Patience
from maekit.engine.precision import Precision
from maekit.engine.progress import log_estimate, meter
from maekit.engine.run_state import RunFolder
from maekit.engine.schedule import Plan
from maekit.engine.signals import StopRequest, stop_requests
from maekit.engine.task import Batches, Outcome, Task
from maekit.engine.timing import TRACE, Timing, traced
from maekit.errors import Stopped, TrainingError
from maekit.randomness import key

log = logging.getLogger("maekit")


def train(
    task: Task,
    batches: Batches,
    *,
    plan: Plan,
    optimizer: OptimizerConfig,
    config: RunConfig,
    world: World,
    folder: RunFolder | None,
    facts: Mapping[str, Any],
    evaluate_every: int | None = None,
    best_by: str | None = None,
    patience: Patience | None = None,
    at_log_points: Callable[[], None] = lambda: None,
    looks: Mapping[int, Callable[[], None]] | None = None,
    gflop: float | None = None,
    advice: str = "",
) -> Outcome:
    """Train to the end of the plan, from the newest sound checkpoint where there is one.

    folder: where history and checkpoints go; None on all ranks but the first, and for runs that leave nothing.
    facts: what a checkpoint says of the run beside its step. evaluate_every: steps between validations. best_by: whose
    highest value earns best.safetensors (of averaged weights, if any). patience: what ends it before the plan does.
    at_log_points: raises what has to end all.
    looks: by step (0: before the first), what looks at the model then, on every rank, as evaluation does.
    gflop: of an image in training, for MFU. advice: what to do where images are waited for.
    Raises Stopped after a signal, the state saved; TrainingError where none is kept, and for a loss that is not finite.
    """
    loop = _Loop(
        task, plan, optimizer, config, world, folder, facts, evaluate_every, best_by, patience, at_log_points,
        looks or {}, gflop, advice,
    )  # fmt: skip
    start = loop.restore()
    early = loop.ends_early(start)
    if start < plan.steps and not early:
        return loop.run(batches, start)
    log.info("the run is complete: it is at step %d of %d%s", start, plan.steps, early and f", as {early}")
    return loop.outcome(start, {} if folder is None else metrics.last(folder.path / "metrics.jsonl"), early)


@dataclass(eq=False)
class _Loop:
    """The state of a run between two steps."""

    task: Task
    plan: Plan
    optimizing: OptimizerConfig
    config: RunConfig
    world: World
    folder: RunFolder | None
    facts: Mapping[str, Any]
    evaluate_every: int | None = None
    best_by: str | None = None
    patience: Patience | None = None
    at_log_points: Callable[[], None] = lambda: None
    looks: Mapping[int, Callable[[], None]] = field(default_factory=dict)
    gflop: float | None = None
    advice: str = ""

    def __post_init__(self) -> None:
        task, plan, config, world = self.task, self.plan, self.config, self.world
        self.model = task.model.train()
        self.precision = Precision(config.precision, world.device)
        self.divided = config.parallel == "fsdp" and world.size > 1
        self.forward = compiled.step_of(task, config)
        if self.divided:
            sharding.shard(self.forward, config, world, self.precision.dtype)
        self.model.to(world.device)
        named = list(self.model.named_parameters())
        self.parameters = [parameter for _, parameter in named if parameter.requires_grad]
        self.optimizer = optimizers.build(self.optimizing, named, plan.lr, task.rate_factors())
        self.keeps: bool = world.tell(self.folder is not None)
        self.ema = Ema(self.model, config.ema, plan.steps, task.averaged) if config.ema else None
        if world.size > 1 and not self.divided:
            self.forward = parallel(self.forward)
        measure = f"{self.best_by}_ema" if self.best_by and self.ema is not None else self.best_by
        self.best = Best(self.folder, measure, world)
        self.checkpoints = checkpoints.Checkpoints(self.folder, config, world, divided=self.divided)
        # A step whose loss or gradient is not finite changes nothing, nor does any after it; which one it was is read
        # from the device at the next log point.
        self.spoilt_step = torch.full((), -1, dtype=torch.int64, device=world.device)
        self.recent: dict[int, list[int]] = {}
        self.losses: dict[str, Tensor] = {}
        self.gradient_norm = torch.zeros((), device=world.device)
        self.timing = Timing(world.device, self.precision.dtype, self.gflop, self.advice)
        self.saved = -1
        self.passes = 0

    def run(self, batches: Batches, start: int) -> Outcome:
        """The steps from `start` to the end of the plan."""
        plan, config, folder = self.plan, self.config, self.folder
        with contextlib.ExitStack() as open_now:
            history = None
            if folder is not None:
                history = History(folder.path, tensorboard=config.tensorboard, after_step=start)
                open_now.callback(history.close)
            request = open_now.enter_context(stop_requests(self.keeps))
            shown = open_now.enter_context(meter(plan.steps, start, visible=self.world.is_first))
            open_now.callback(self.checkpoints.settle)
            stream = batches(start)
            open_now.callback(getattr(stream, "close", lambda: None))
            # the micro-batches of each step; a last incomplete group is a step of its own
            waited = self.timing.waiting(stream)
            groups = iter(lambda: list(itertools.islice(waited, plan.accumulation)), [])
            trace = None if folder is None else folder.path / TRACE
            after_step = open_now.enter_context(traced(config.profile, trace, self.timing))
            record: Record = {}
            self.look(start)
            if not config.compile:  # else time is counted from the end of the first step, which compiles
                shown.advance(start)
            self.timing.restart(start)
            for step, group in enumerate(groups, start):
                if not self.step(step, group, request):
                    self.stop_after(step, request)
                after_step()
                done, last = step + 1, step + 1 == plan.steps
                evaluates = self.evaluate_every is not None and (done % self.evaluate_every == 0 or last)
                shown.advance(done)
                if done % config.resolved_log_every(plan.steps) == 0 or last or evaluates or step == 0:
                    self.at_log_points()
                    record = self.record(done) | (self.evaluate() if evaluates else {})
                    if history is not None:
                        history.write(record)
                    shown.show(record)
                    self.timing.restart(done)
                self.look(done)
                early = self.ends_early(done) if evaluates and not last else ""
                stops = self.must_stop(request)
                if done % config.resolved_checkpoint_every(plan.steps) == 0 or last or stops or early:
                    self.save(done)
                    self.timing.restart(done)
                if early:
                    return self.outcome(done, record, early)
                if stops:
                    self.stop_after(done, request)
            return self.outcome(plan.steps, record)

    def ends_early(self, done: int) -> str:
        """Why the run ends after `done` steps, before its plan does; empty where it goes on. The same on every rank."""
        if self.patience is None:
            return ""
        known = [] if self.folder is None else metrics.read(self.folder.path / "metrics.jsonl")
        return self.world.tell(self.patience.spent(known, done))

    def step(self, step: int, group: list[Any], request: StopRequest) -> bool:
        """One optimizer step over the micro-batches of `group`; False where a signal cut it short, which undoes it."""
        images = sum(len(batch) for batch in group)
        self.recent[step] = [index for batch in group for index in batch.indices.tolist()]
        self.losses = {}
        for number, batch in enumerate(group):
            torch.manual_seed(key(self.config.seed, step, self.world.rank, number) >> 1)
            last = number == len(group) - 1
            began = time.perf_counter()
            held = isinstance(self.forward, DistributedDataParallel) and not last
            with contextlib.ExitStack() as inside:
                inside.enter_context(compiled.explained(self.config))
                if held:
                    inside.enter_context(self.forward.no_sync())  # type: ignore[operator]
                with self.precision.autocast():
                    losses = self.forward(self.task.prepare(batch.to(self.world.device)))
                share = len(batch) / images
                self.precision.scaler.scale(losses["loss"] * share).backward()
            for name, value in losses.items():
                self.losses[name] = self.losses.get(name, 0) + value.detach() * share
            self.estimate(step, began)
            if not last and self.must_stop(request):
                self.optimizer.zero_grad(set_to_none=True)
                return False
        self._update(step)
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(step)
        if self.world.device.type == "cpu":
            self._check_finite()
        return True

    def estimate(self, step: int, began: float) -> None:
        """After the first pass, say how long the run will take by it; after the second where the first compiles."""
        self.passes += 1
        if self.passes != (2 if self.config.compile else 1):
            return
        if self.world.device.type == "cuda":
            torch.cuda.synchronize()
        log_estimate(time.perf_counter() - began, self.plan, step, memory.peak(self.world.device))

    def stop_after(self, done: int, request: StopRequest) -> NoReturn:
        """Save the state after `done` steps, unless it is, and raise Stopped; TrainingError where none is kept."""
        by = request.signal or "a signal to another process"
        if not self.keeps:
            raise TrainingError(f"stopped by {by} at step {done}; nothing of this training is kept")
        if self.saved != done:
            self.save(done)
        self.checkpoints.finish()
        run = "" if self.folder is None else str(self.folder.path)
        raise Stopped(f"stopped by {by} after saving step {done}", run, done, request.signal)

    def _update(self, step: int) -> None:
        scaler = self.precision.scaler
        scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        self.gradient_norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if self.optimizing.clip is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.optimizing.clip, self.gradient_norm)
        sound, finite = torch.isfinite(self.losses["loss"]), torch.isfinite(self.gradient_norm)
        overflows = scaler.is_enabled()  # fp16, where it is ordinary: the step is left out, and the scale made smaller
        if not overflows:
            sound = sound & finite
        spoilt = (self.spoilt_step < 0) & ~sound
        self.spoilt_step = torch.where(spoilt, step, self.spoilt_step)
        optimizers.set_rate(self.optimizer, self.plan.learning_rate(step))
        optimizers.step_unless((self.spoilt_step >= 0) | ~finite, self.optimizer, moments=overflows)
        scaler.update()

    def _check_finite(self) -> None:
        """Raises TrainingError on every rank where a step was not finite; its images are written down first."""
        spoilt = int(self.spoilt_step)
        if not self.world.agree(spoilt >= 0):
            self.recent.clear()
            return
        step = min(found for found in self.world.gather([spoilt]) if found >= 0)
        images = self.world.gather(self.recent.get(step, []))
        where = ""
        if self.folder is not None:
            path = self.folder.path / "not_finite.json"
            storage.write_text(path, json.dumps({"step": step, "images": images}) + "\n")
            where = f"; its images are listed in {path}"
        raise TrainingError(
            f"the loss or its gradient is not finite at step {step}, before the update{where}; "
            "lower --lr, set --optimizer.clip 1, or take --precision bf16 or fp32, with --resume --allow-drift"
        )

    def record(self, done: int) -> Record:
        """The history's line after `done` steps, the same on every rank."""
        self._check_finite()
        self.checkpoints.check()
        values = {name: float(self.world.mean(value)) for name, value in self.losses.items()}
        loss = values.pop("loss")
        record = {"step": done, "epoch": self.plan.epoch(done), "loss": loss, "lr": self.plan.learning_rate(done - 1)}
        record |= {"gradient_norm": float(self.gradient_norm)}
        record |= self.timing.record(done, self.plan.batch_size, self.world.size) | values
        if self.world.device.type == "cuda":
            record["memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 3)
        return record

    def evaluate(self) -> Record:
        """What the task says of the weights, and of their running average; the best are kept."""
        with self._judging():
            with self._whole():
                said: Record = dict(self.task.evaluate())
            if self.ema is not None:
                with self.ema.in_place(), self._whole():
                    said |= {f"{name}_ema": value for name, value in self.task.evaluate_average().items()}
        tensors = self.model.state_dict() if self.ema is None else self.ema.state_dict()
        self.best.keep(said, tensors, self.task.metadata())
        return said

    def look(self, step: int) -> None:
        """Let the model after `step` steps be looked at, where that is wanted."""
        if step in self.looks:
            with self._judging(), self._whole():
                self.looks[step]()
            self.timing.restart(step)

    @contextlib.contextmanager
    def _judging(self) -> Iterator[None]:
        self.model.eval()
        try:
            with torch.no_grad(), self.precision.autocast():
                yield
        finally:
            self.model.train()

    def must_stop(self, request: StopRequest) -> bool:
        """Whether any process was asked to stop."""
        return self.world.agree(request.signal is not None)

    def save(self, done: int) -> None:
        """A checkpoint after `done` steps, written by the first rank. A state that is not finite is never saved."""
        self.saved = done
        self._check_finite()
        files = {"model": self.model.state_dict(), "optimizer": optimizers.state_tensors(self.optimizer)}
        metadata = {"model": self.task.metadata()}
        if self.ema is not None:
            files["ema"], metadata["ema"] = self.ema.state_dict(), self.task.average_metadata()
        self.checkpoints.save(done, files, {**self.facts, "scaler": self.precision.state()}, metadata)

    def restore(self) -> int:
        """Load the newest sound checkpoint, or that to branch from; the step it stands at, the same on every rank."""
        found = self.world.patiently(lambda: branch.newest(self.folder, self.config, self.plan, self.facts))
        told = self.world.tell(found)
        if told is None:
            if self.config.resume:
                log.info("no sound checkpoint to go on from; starting from step 0")
            return 0
        path, facts = told
        refuse_drift(facts, self.facts, allowed=self.config.allow_drift)
        self.world.patiently(lambda: checkpoints.load_into(path, self.model, self.optimizer, self.ema))
        self.precision.restore(facts["scaler"])
        self.saved = int(facts["step"])
        log.info("going on from step %d", facts["step"])
        return int(facts["step"])

    def outcome(self, step: int, record: Record, early: str = "") -> Outcome:
        """What `train` gives back, once all is on the disk."""
        self.checkpoints.finish()
        averaged = None if self.ema is None else sharding.gathered(self.ema.state_dict(), self.world)
        return Outcome(step, record, sharding.gathered(self.model.state_dict(), self.world), averaged, early)

    def _whole(self) -> contextlib.AbstractContextManager[None]:
        return sharding.whole(self.forward, self.config) if self.divided else contextlib.nullcontext()
