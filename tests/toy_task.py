"""A task and batches with which the training loop can be watched: a small regression, some of whose numbers are bad."""

import math
import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from maekit.config import OptimizerConfig, RunConfig, ScheduleConfig
from maekit.engine.distributed import World
from maekit.engine.loop import train
from maekit.engine.run_state import open_run
from maekit.engine.schedule import Plan
from maekit.engine.task import Outcome

IMAGES = 64
INPUTS = torch.randn(IMAGES, 6, generator=torch.Generator().manual_seed(1))
ANSWERS = INPUTS.sin().sum(dim=1, keepdim=True)

CPU = RunConfig(device="cpu", tensorboard=False, log_every=1, checkpoint_every=100)
SGD = OptimizerConfig(name="sgd", lr=0.05, betas=(0.0, 0.0), weight_decay=0.0)
ADAMW = OptimizerConfig(lr=1e-2)
MUON = OptimizerConfig(name="muon", lr=1e-2)


@dataclass
class ToyBatch:
    """Rows of INPUTS by number."""

    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def to(self, device: torch.device) -> "ToyBatch":
        return ToyBatch(self.indices.to(device))


class ToyTask:
    """Regression with dropout. A batch with a number in `poison` has NaN for its loss; `signals` go out at numbers."""

    def __init__(self, *, poison: tuple[int, ...] = (), signals: dict[int, int] | None = None, dropout: float = 0.1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            parts = {"blocks": nn.Linear(6, 8), "1": nn.GELU(), "2": nn.Dropout(dropout), "head": nn.Linear(8, 1)}
            self.model = nn.Sequential(OrderedDict(parts))
        self.poison, self.signals = poison, dict(signals or {})

    def prepare(self, batch: ToyBatch) -> ToyBatch:
        return batch

    def loss(self, batch: ToyBatch) -> dict[str, Tensor]:
        for number in batch.indices.tolist():
            if number in self.signals:
                os.kill(os.getpid(), self.signals.pop(number))
        error = (self.model(INPUTS[batch.indices]) - ANSWERS[batch.indices]).square().mean()
        if set(self.poison) & set(batch.indices.tolist()):
            error = error * math.nan
        return {"loss": error, "half": error / 2}

    def evaluate(self) -> dict[str, float]:
        return {"val_error": float((self.model(INPUTS) - ANSWERS).square().mean())}

    def rate_factors(self) -> dict[str, float]:
        return {}

    def metadata(self) -> dict[str, str]:
        return {"toy": "yes"}

    averaged, average_metadata = "", metadata

    def evaluate_average(self) -> dict[str, float]:
        return self.evaluate()


def plan_of(steps: int, batch_size: int = 8, micro_batch: int = 8, optimizer: OptimizerConfig = ADAMW, world: int = 1):
    """A plan over IMAGES numbers, without warmup."""
    schedule = ScheduleConfig(steps=steps, batch_size=batch_size, micro_batch_size=micro_batch)
    return Plan.of(optimizer, schedule, IMAGES, world)


def toy_batches(plan: Plan, start: int, rank: int = 0) -> Iterator[ToyBatch]:
    """Numbers 0, 1, 2, ... round and round; step s takes s * batch size and what follows."""
    share = plan.batch_size // plan.world_size
    for step in range(start, plan.steps):
        first = step * plan.batch_size + rank * share
        for at in range(first, first + share, plan.micro_batch):
            yield ToyBatch(torch.arange(at, at + plan.micro_batch) % IMAGES)


def run(
    task: ToyTask,
    plan: Plan,
    folder: Path | None = None,
    *,
    optimizer: OptimizerConfig = ADAMW,
    evaluate_every: int | None = None,
    **settings,
) -> Outcome:
    """Train in one process, in a run folder if one is given; settings are RunConfig's."""
    config = replace(CPU, **settings)

    def training(held):
        return train(
            task,
            lambda start: toy_batches(plan, start),
            plan=plan,
            optimizer=optimizer,
            config=config,
            world=World(),
            folder=held,
            facts={"identity": {"seed": config.seed}},
            evaluate_every=evaluate_every,
        )

    if folder is None:
        return training(None)
    with open_run(folder, resume=config.resume, overwrite=config.overwrite) as held:
        return training(held)
