"""Supervised training: fine-tuning and training from scratch, which differ in their initial weights alone."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor
from torch.nn import functional as F

from maekit.config import ClassifyConfig, files
from maekit.config.beforehand import check_mixing
from maekit.config.data import crop_share_for
from maekit.config.verbs import WeightsOptions
from maekit.data.loader import BadImages, Batch, eval_batches
from maekit.data.ranges import known_range
from maekit.data.sources import Source
from maekit.data.sources.labelled import labelled_pair
from maekit.data.sources.subset import few_per_class
from maekit.data.statistics import standardisation
from maekit.engine import loop, memory
from maekit.engine.distributed import World
from maekit.engine.drift import identity
from maekit.engine.schedule import Plan
from maekit.errors import UsageError
from maekit.inference.evaluate import Evaluation, judge
from maekit.inference.one_pass import crop_share_of
from maekit.models import classifier
from maekit.models.classifier import Classifier
from maekit.models.family import layer_ids
from maekit.randomness import global_seeds
from maekit.recipes import execution, planning
from maekit.report import judgement, page
from maekit.weights import native
from maekit.weights.load import load
from maekit.weights.transfer import copy_encoder

log = logging.getLogger("maekit")

_STEPS_BETWEEN = 10  # two validations, at least, where the config does not say: an epoch of few images is a step or two


@dataclass(frozen=True)
class LabelledBatch:
    """images: [N, C, H, W] standardised. targets: int64 [N], or where images are mixed, shares of classes [N, Y]."""

    images: Tensor
    targets: Tensor


class ClassifyTask:
    """Cross-entropy against labels, which Mixup and CutMix may blend."""

    def __init__(self, config: ClassifyConfig, model: Classifier, val: Source, world: World) -> None:
        self.config, self.model, self._val, self._world = config, model, val, world
        self._bad = BadImages(val, config.data.bad_share)
        mix = config.mix
        self._mixup = None
        if mix.mixup or mix.cutmix:
            self._mixup = Mixup(
                mix.mixup,
                mix.cutmix,
                prob=mix.prob,
                switch_prob=mix.switch_prob,
                label_smoothing=mix.smoothing,
                num_classes=len(model.classes),
            )
        self._soft_loss = SoftTargetCrossEntropy()
        self.judged: Evaluation | None = None
        """The last validation; of the averaged weights where there are any."""

    def prepare(self, batch: Batch) -> "LabelledBatch":
        """A batch standardised, and mixed where the config says so."""
        images = self.model.standardise(batch.images)
        if self._mixup is None:
            return LabelledBatch(images, batch.labels)
        # timm draws from NumPy's global generator. Its seed comes from torch's, which the loop keys by step and rank.
        with global_seeds(int(torch.randint(2**62, ()))):
            return LabelledBatch(*self._mixup(images, batch.labels))

    def loss(self, prepared: "LabelledBatch") -> dict[str, Tensor]:
        """Mean cross-entropy of a batch."""
        logits = self.model(prepared.images).float()
        if self._mixup is None:
            smoothing = self.config.mix.smoothing
            return {"loss": F.cross_entropy(logits, prepared.targets, label_smoothing=smoothing)}
        return {"loss": self._soft_loss(logits, prepared.targets)}

    def evaluate(self) -> dict[str, float]:
        """val_top1, val_top5 and val_loss over the held-out images."""
        said = self.judged = judge(self.model, self._val_batches(), self._world)
        return {"val_top1": said.top1, "val_top5": said.top5, "val_loss": said.loss}

    def rate_factors(self) -> dict[str, float]:
        """Layer-wise decay (arXiv 2106.08254, appendix): each block learns less than the one above it."""
        decay = self.config.optimizer.layer_decay
        if decay is None:
            return {}
        ids, last = layer_ids(self.model.encoder)
        return {f"encoder.{name}": decay ** (last - layer) for name, layer in ids.items()}

    def metadata(self) -> dict[str, str]:
        return native.metadata(self.model)

    averaged, average_metadata = "", metadata

    def evaluate_average(self) -> dict[str, float]:
        return self.evaluate()

    def _val_batches(self) -> Iterator[Batch]:
        return eval_batches(
            self._val,
            indices=None,
            image_hw=self.model.config.image_hw,
            channels=self.model.config.channels,
            crop_share=crop_share_of(self.model, self.config.validation.crop_share),
            batch_size=self.config.schedule.micro_batch_limit,
            workers=self.config.data.workers,
            bad=self._bad,
            rank=self._world.rank,
            world_size=self._world.size,
            value_range=self.model.value_range,
        )


def finetune(config: ClassifyConfig) -> dict[str, Any]:
    """Train a classifier from the encoder in `config.weights`; returns {run, steps, loss, val_top1, ...}."""
    if not config.weights:
        raise UsageError("--weights is missing: what to fine-tune; training from nothing is maekit scratch")
    return _run("finetune", config)


def scratch(config: ClassifyConfig) -> dict[str, Any]:
    """Train a classifier from nothing; returns {run, steps, loss, val_top1, ...}."""
    if config.weights:
        raise UsageError("--weights: scratch starts from nothing; training from weights is maekit finetune")
    return _run("scratch", config)


def _run(verb: str, config: ClassifyConfig) -> dict[str, Any]:
    with execution.join_world(config.run) as world:
        opened, held_out = execution.open_sources(config, world)
        if held_out is None:
            raise UsageError("--val is missing: labelled images to judge by; or hold some out: --val-split 0.1")
        train, val = labelled_pair(opened, held_out)
        if config.per_class is not None:
            train = few_per_class(train, config.per_class, config.run.seed)
        config = execution.with_range(config, train)
        execution.warn_of_shared(train, val, world)
        config, plan = planning.planned(config, len(train), world)
        check_mixing(config, plan.micro_batch)
        model = build_model(config, train)
        config = execution.with_crop_share(config, model.config.image_hw)
        model.recompute_activations(config.run.checkpoint_activations)
        task = ClassifyTask(config, model, val, world)
        bad = BadImages(train, config.data.bad_share)
        with (
            execution.hold_folder(config.run, config.name, world) as folder,
            memory.explained(plan, config.run, model.config.image_hw, world.device),
        ):
            fingerprint = world.patiently(train.fingerprint)
            execution.write_down(folder, config, train, fingerprint, plan, world)
            execution.print_header(verb, config, model, train, plan, world, folder)
            outcome = loop.train(
                task,
                lambda start: execution.training_batches(config, model.config, train, plan, start, world, bad),
                plan=plan,
                optimizer=config.optimizer,
                config=config.run,
                world=world,
                folder=folder,
                facts={"identity": identity(files.to_dict(config), fingerprint)},
                evaluate_every=_evaluate_every(config, plan),
                best_by="val_top1",
            )
            unreadable = execution.count_unreadable(bad, world)
            if task.judged is None or config.run.ema is not None:  # not yet judged as they are written
                model.eval()
                task.evaluate()
            if folder is not None:
                execution.write_weights(folder, task, outcome.averaged)
                sections = [*judgement.sections(task.judged), *page.run_sections(folder.path)]
                page.write(folder.path / "report.html", f"maekit {verb} {config.name}", sections)
            return execution.answer(folder, outcome, unreadable, train)


def _evaluate_every(config: ClassifyConfig, plan: Plan) -> int:
    if config.validation.every is None:
        return max(_STEPS_BETWEEN, execution.steps_of(1.0, plan))
    return execution.steps_of(config.validation.every, plan)


def build_model(config: ClassifyConfig, train: Source) -> Classifier:
    """The classifier that training starts from: weights, positions and frozen blocks as the config says."""
    classes = train.classes or ()
    settings = config.classifier
    if not config.weights:
        if config.model is None:
            raise UsageError("model: scratch needs an encoder to build; take a scratch preset")
        mean, std = standardisation(config.data, train, config.model.channels)
        model = classifier.build(config.model, settings, classes, mean=mean, std=std, seed=config.run.seed)
    else:
        options = WeightsOptions(
            image_size=settings.image_size, resample_positions=settings.resample_positions, window=settings.window
        )
        source = load(config.weights, options, decoder=False)
        mean, std = source.standardise.values()
        model = classifier.build(source.config, settings, classes, mean=mean, std=std, seed=config.run.seed)
        copy_encoder(model, source, config.weights)
        _take_head(model, source, config.weights)
    if settings.train_positions and isinstance(positions := getattr(model.encoder, "pos_embed", None), Tensor):
        positions.requires_grad_(True)
    _freeze(model, settings.freeze_blocks)
    model.crop_share = config.validation.crop_share or crop_share_for(model.config.image_hw)
    model.value_range = known_range(config.data.range)
    return model


def _take_head(model: Classifier, source: native.Model, weights: str) -> None:
    """Go on with a classifier's head where it is for the same classes; say so where it is not."""
    if not isinstance(source, Classifier):
        return
    if source.classes == model.classes and source.pooling == model.pooling:
        model.head.load_state_dict(source.head.state_dict())
        model.norm.load_state_dict(source.norm.state_dict())
    else:
        log.info("%s: is a classifier of other classes or pooling; the head starts anew", weights)


def _freeze(model: Classifier, blocks: int) -> None:
    if not blocks:
        return
    ids, last = layer_ids(model.encoder)
    if blocks >= last:
        raise UsageError(f"classifier.freeze_blocks: {blocks} of {last - 1} blocks; at most {last - 1}")
    for name, parameter in model.encoder.named_parameters():
        if ids[name] <= blocks:
            parameter.requires_grad_(False)
