"""Probes that are trained: the paper's linear layer over random crops, queries that attend to patch tokens.

Legend: N images, T patch tokens, D feature width, Y classes.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from maekit.config import AugmentConfig, DataConfig, OptimizerConfig, ProbeConfig, RunConfig, ScheduleConfig
from maekit.data.loader import BadImages, Batch, train_batches
from maekit.data.sources import Source
from maekit.engine import loop
from maekit.engine.distributed import World
from maekit.engine.precision import Precision
from maekit.engine.schedule import Plan
from maekit.engine.task import Batches, Task
from maekit.errors import DataError
from maekit.inference.features import Features, extract
from maekit.inference.one_pass import seen_by
from maekit.models.encoder import ImageEncoder
from maekit.models.family import Features as Kind
from maekit.models.probe_heads import AttentiveProbe, BatchNorm, EfficientProbe, LinearProbe
from maekit.randomness import key, numpy_generator
from maekit.sending import send

log = logging.getLogger("maekit")

_HEAD, _ORDER = 0x68656164, 0x746F6B656E  # keep these draws apart from others with the same seed
_ATTENDING_LEAST_STEPS = 1000
Head = Callable[[int, int], nn.Module]
"""Of a width of features and a number of classes."""


class Choice(NamedTuple):
    """Which features are judged: their kind, and over how many last blocks they are the mean."""

    features: Kind
    blocks: int

    @property
    def name(self) -> str:
        return f"{self.features}_{self.blocks}"


@dataclass(frozen=True)
class Trial:
    """A frozen encoder in eval mode, and the images it is judged by."""

    model: ImageEncoder
    train: Source
    val: Source
    config: ProbeConfig
    world: World

    @property
    def classes(self) -> int:
        return len(self.train.classes or ())

    def batches(
        self,
        source: Source,
        world: World | None,
        *,
        indices: NDArray[np.int64] | None = None,
        batch_size: int | None = None,
    ) -> Iterator[Batch]:
        """Centre crops of a source in its order, or of the images at `indices`.

        world: the processes that share them; None: each has all. batch_size: as `seen_by`; None: the config's.
        """
        config = self.config
        return seen_by(
            self.model,
            source,
            bad=BadImages(source, config.bad_share),
            batch_size=batch_size or config.micro_batch_size,
            workers=config.workers,
            indices=indices,
            crop_share=config.crop_share,
            world=world,
        )


class ProbeTask(Task):
    """Cross-entropy of heads on frozen features. Heads share nothing, so several are trained by their summed loss."""

    def __init__(self, heads: Mapping[str, tuple[Head, Choice]], trial: Trial) -> None:
        """heads: by name, with the features that each reads."""
        self._choices, self._trial = {name: choice for name, (_, choice) in heads.items()}, trial
        self.model: nn.ModuleDict = nn.ModuleDict()
        for name, (head, choice) in heads.items():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(key(_HEAD, trial.config.seed, choice.blocks) >> 1)
                self.model[name] = head(trial.model.width, trial.classes)
        for norm in self.model.modules():
            if isinstance(norm, BatchNorm) and trial.world.size > 1:
                norm.sum_over_all = trial.world.sum

    def prepare(self, batch: "Batch | _TokenBatch") -> tuple[dict[str, Tensor], Tensor]:
        """Each head's features, with no way back into the encoder, and the labels."""
        if isinstance(batch, _TokenBatch):
            return dict.fromkeys(self._choices, batch.tokens), batch.labels
        features, distinct = self._trial.model.features, set(self._choices.values())
        found = {one: features(batch.images, one.features, blocks=one.blocks) for one in distinct}
        return {name: found[one] for name, one in self._choices.items()}, batch.labels

    def loss(self, prepared: tuple[dict[str, Tensor], Tensor]) -> dict[str, Tensor]:
        inputs, labels = prepared
        losses = [F.cross_entropy(logits.float(), labels) for logits in self._logits(inputs).values()]
        return {"loss": torch.stack(losses).sum()}

    def evaluate(self) -> dict[str, float]:
        """val_NAME: top-1 of the head of that name."""
        trial = self._trial
        right = torch.zeros(len(self.model), dtype=torch.int64, device=trial.world.device)
        images = 0
        for batch in trial.batches(trial.val, trial.world):
            inputs, labels = self.prepare(batch.to(trial.world.device))
            right += torch.stack([(each.argmax(dim=1) == labels).sum() for each in self._logits(inputs).values()])
            images += len(batch)
        total = int(trial.world.sum(torch.tensor(images, device=trial.world.device)))
        if not total:
            raise DataError(f"{trial.val.text}: no validation image can be read")
        counts = trial.world.sum(right).tolist()
        return {f"val_{name}": count / total for name, count in zip(self.model, counts, strict=True)}

    def _logits(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: head(inputs[name]) for name, head in self.model.items()}


def train_linear(trial: Trial, choices: Iterable[Choice]) -> dict[Choice, float]:
    """Top-1 of the paper's linear probe (arXiv 2111.06377, appendix A.1) on each choice of features.

    LARS, momentum 0.9, base rate 0.1 per 256, no weight decay, 10 epochs of warmup, random crops and flips. One pass of
    training serves all choices: each has a head of its own.
    """
    config, model, choices = trial.config, trial.model, list(choices)
    optimizer = OptimizerConfig(
        name="lars",
        base_lr=config.base_lr or 0.1,
        betas=(0.9, 0.999),
        weight_decay=0.0,
        trust_coefficient=config.trust_coefficient,
    )
    epochs = config.epochs or 90.0
    schedule = ScheduleConfig(epochs=epochs, warmup_epochs=min(10.0, epochs / 5), batch_size=config.batch_size or 16384)
    plan = _plan(trial, optimizer, schedule, len(trial.train))

    def batches(start: int) -> Iterator[Batch]:
        return train_batches(
            trial.train,
            DataConfig(workers=config.workers, range=model.value_range),
            AugmentConfig(crop="random", scale=(0.08, 1.0), flip=0.5),
            image_hw=model.config.image_hw,
            channels=model.config.channels,
            seed=config.seed,
            batch_size=plan.batch_size,
            micro_batch=plan.micro_batch,
            start_step=start,
            total_steps=plan.steps,
            rank=trial.world.rank,
            world_size=trial.world.size,
            bad=BadImages(trial.train, config.bad_share),
        )

    said = _train(
        "linear", ProbeTask({one.name: (LinearProbe, one) for one in choices}, trial), batches, plan, optimizer, trial
    )
    return {choice: said[f"val_{choice.name}"] for choice in choices}


@dataclass(frozen=True)
class _TokenBatch:
    """tokens: [N, T, D]. labels, indices: [N] int64."""

    tokens: Tensor
    labels: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: torch.device) -> "_TokenBatch":
        return _TokenBatch(send(self.tokens, device), send(self.labels, device), self.indices)


def train_attending(trial: Trial, kinds: Sequence[str], blocks: int) -> dict[str, float]:
    """Top-1, by kind, of queries that attend to the patch tokens of the last blocks, trained by AdamW on centre crops.

    kinds: of "attentive" and "efficient". One training serves both: each has a head of its own. The tokens are computed
    once where they fit `config.token_memory`, else anew in every pass, from the same crops in the same order.
    """
    config, choice = trial.config, Choice("patches", blocks)
    optimizer = OptimizerConfig(name="adamw", base_lr=config.base_lr or 3e-3, betas=(0.9, 0.999), weight_decay=0.01)
    epochs = config.epochs or 30.0
    schedule = ScheduleConfig(epochs=epochs, warmup_epochs=epochs / 10, batch_size=config.batch_size or 256)
    tokens = _cached_tokens(trial, choice)
    images = len(trial.train) if tokens is None else len(tokens.labels)
    plan = _plan(trial, optimizer, schedule, images)
    if config.epochs is None and plan.steps < _ATTENDING_LEAST_STEPS:
        plan = _plan(trial, optimizer, replace(schedule, steps=_ATTENDING_LEAST_STEPS), images)

    def batches(_: int) -> Iterator[Batch | _TokenBatch]:  # a probe keeps no checkpoint to go on from
        order = _order(images, plan, config.seed, trial.world.rank)
        if tokens is None:
            yield from trial.batches(trial.train, None, indices=order, batch_size=plan.micro_batch)
            return
        for rows in torch.from_numpy(order).split(plan.micro_batch):
            yield _TokenBatch(tokens.vectors[rows], tokens.labels[rows], tokens.indices[rows])

    heads: dict[str, Head] = {"attentive": AttentiveProbe, "efficient": partial(EfficientProbe, queries=config.queries)}
    task = ProbeTask({kind: (heads[kind], choice) for kind in kinds}, trial)
    said = _train(" and ".join(kinds), task, batches, plan, optimizer, trial)
    return {kind: said[f"val_{kind}"] for kind in kinds}


def _plan(trial: Trial, optimizer: OptimizerConfig, schedule: ScheduleConfig, images: int) -> Plan:
    """The plan with a batch no larger than the source, in whole passes of equal size, however many ranks share them."""
    ranks = trial.world.size
    wanted = max(ranks, min(schedule.images_a_step, images))
    micro = max(1, min(trial.config.micro_batch_size, wanted) // ranks)
    passes = wanted // (ranks * micro)
    sized = replace(schedule, batch_size=passes * ranks * micro, micro_batch_size=micro)
    return Plan.of(optimizer, sized, images, ranks)


def _order(images: int, plan: Plan, seed: int, rank: int) -> NDArray[np.int64]:
    """Which image this rank sees at each place of the whole training, an order of its own for each epoch."""
    total = plan.steps * plan.batch_size
    epochs = -(-total // images)
    order = np.concatenate([numpy_generator(_ORDER, seed, epoch).permutation(images) for epoch in range(epochs)])
    return order[:total].reshape(-1, plan.world_size, plan.micro_batch)[:, rank].ravel()


def _cached_tokens(trial: Trial, choice: Choice) -> Features | None:
    """Patch tokens of all training images, on every rank; None where they would take too much memory."""
    config = trial.model.config
    blank = torch.zeros(1, config.channels, *config.image_hw, device=trial.model.device)
    values = trial.model.features(blank, "patches", blocks=choice.blocks)[0].numel()
    gigabytes = values * 4 * len(trial.train) / 1e9
    if gigabytes > trial.config.token_memory:
        log.info(
            "patch tokens of %d images take %.3g GB, above --token-memory %.3g: computed in every pass",
            len(trial.train), gigabytes, trial.config.token_memory,
        )  # fmt: skip
        return None
    with Precision(trial.config.precision, trial.world.device).autocast():
        return extract(trial.model, trial.batches(trial.train, None), "patches", blocks=choice.blocks)


def _train(
    kind: str, task: ProbeTask, batches: Batches, plan: Plan, optimizer: OptimizerConfig, trial: Trial
) -> dict[str, Any]:
    """The last record of a training that leaves nothing on disk."""
    log.info(
        "%s: %d steps of %d images (%.4g epochs), rate %.3g at its peak, %.3g per 256 images",
        kind, plan.steps, plan.batch_size, plan.epoch(plan.steps), plan.lr, plan.base_lr,
    )  # fmt: skip
    outcome = loop.train(
        task,
        batches,
        plan=plan,
        optimizer=optimizer,
        config=RunConfig(seed=trial.config.seed, precision=trial.config.precision, tensorboard=False),
        world=trial.world,
        folder=None,
        facts={},
        evaluate_every=plan.steps,
    )
    return outcome.record
