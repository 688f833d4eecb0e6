"""Supervised training: fine-tuning and training from scratch, which differ in their initial weights alone."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor
from torch.nn import functional as F

from maekit.config import ClassifyConfig, MixConfig
from maekit.config.beforehand import check_mixing
from maekit.config.data import crop_share_for
from maekit.config.verbs import WeightsOptions
from maekit.data.loader import BadImages, Batch
from maekit.data.ranges import known_range
from maekit.data.sources import Source
from maekit.data.sources.labelled import labelled_pair
from maekit.data.sources.subset import few_per_class
from maekit.data.statistics import standardisation
from maekit.engine.distributed import World
from maekit.engine.task import Task
from maekit.errors import UsageError
from maekit.inference.evaluate import Evaluation, judge
from maekit.inference.one_pass import seen_by
from maekit.models import classifier
from maekit.models.classifier import Classifier
from maekit.models.family import layer_ids
from maekit.randomness import global_seeds
from maekit.recipes import training
from maekit.recipes.training import Training
from maekit.report import judgement, page
from maekit.report.run import run_sections
from maekit.weights import native
from maekit.weights.load import load
from maekit.weights.transfer import copy_encoder

log = logging.getLogger("maekit")

_STEPS_BETWEEN = 10  # two validations, at least, where the config does not say: an epoch of few images is a step or two


class ClassifyTask(Task):
    """Cross-entropy against labels, which Mixup and CutMix may blend."""

    model: Classifier

    def __init__(
        self, model: Classifier, mix: MixConfig, layer_decay: float | None, evaluate: Callable[[Classifier], Evaluation]
    ) -> None:
        """evaluate: judges the model by held-out images, the same on every rank."""
        self.model, self._layer_decay, self._judge = model, layer_decay, evaluate
        self._smoothing, self._mixup = mix.smoothing, None
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

    def prepare(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images [N, C, H, W] standardised, and targets: int64 [N], or of mixed images shares of classes [N, Y]."""
        images = self.model.standardise(batch.images)
        if self._mixup is None:
            return images, batch.labels
        # timm draws from NumPy's global generator. Its seed comes from torch's, which the loop keys by step and rank.
        with global_seeds(int(torch.randint(2**62, ()))):
            mixed, shares = self._mixup(images, batch.labels)
            return mixed, shares

    def loss(self, prepared: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Mean cross-entropy of a batch."""
        images, targets = prepared
        logits = self.model(images).float()
        if self._mixup is None:
            return {"loss": F.cross_entropy(logits, targets, label_smoothing=self._smoothing)}
        return {"loss": self._soft_loss(logits, targets)}

    def evaluate(self) -> dict[str, float]:
        """val_top1, val_top5 and val_loss over the held-out images."""
        said = self.judged = self._judge(self.model)
        return {"val_top1": said.top1, "val_top5": said.top5, "val_loss": said.loss}

    def rate_factors(self) -> dict[str, float]:
        """Layer-wise decay (arXiv 2106.08254, appendix): each block learns less than the one above it."""
        decay = self._layer_decay
        if decay is None:
            return {}
        ids, last = layer_ids(self.model.encoder)
        return {f"encoder.{name}": decay ** (last - layer) for name, layer in ids.items()}

    def metadata(self) -> dict[str, str]:
        return native.metadata(self.model)


class Classification(Training[ClassifyConfig, Classifier]):
    """A classifier's training: from the encoder in `weights`, or from nothing."""

    best_by = "val_top1"
    task: ClassifyTask

    def __init__(self, config: ClassifyConfig, world: World) -> None:
        self.verb = "finetune" if config.weights else "scratch"
        super().__init__(config, world)

    def chosen(self, train: Source, held_out: Source | None) -> tuple[Source, Source]:
        if held_out is None:
            raise UsageError("--val is missing: labelled images to judge by; or hold some out: --val-split 0.1")
        train, val = labelled_pair(train, held_out)
        few = self.config.per_class
        return (train if few is None else few_per_class(train, few, self.config.run.seed)), val

    def build(self) -> Classifier:
        check_mixing(self.config, self.plan.micro_batch)
        return build_model(self.config, self.source)

    def make_task(self) -> ClassifyTask:
        assert self.held_out is not None
        val, workers, limit = self.held_out, self.config.data.workers, self.config.schedule.micro_batch_limit
        bad = BadImages(val, self.config.data.bad_share)

        def judged(model: Classifier) -> Evaluation:
            images = seen_by(model, val, bad=bad, batch_size=limit, workers=workers, world=self.world)
            return judge(model, images, self.world)

        return ClassifyTask(self.model, self.config.mix, self.config.optimizer.layer_decay, judged)

    def steps_between(self) -> int:
        every = self.config.validation.every
        return max(_STEPS_BETWEEN, self.steps_of(1.0)) if every is None else self.steps_of(every)

    def finish(self, _: dict[str, Any], folder: Path | None) -> None:
        if self.task.judged is None or self.config.run.ema is not None:  # not yet judged as they are written
            self.model.eval()
            self.task.evaluate()
        if folder is not None:
            sections = [*judgement.sections(self.task.judged), *run_sections(folder)]
            page.write(folder / "report.html", f"maekit {self.verb} {self.config.name}", sections)


def finetune(config: ClassifyConfig) -> dict[str, Any]:
    """Train a classifier from the encoder in `config.weights`; returns {run, steps, loss, val_top1, ...}."""
    if not config.weights:
        raise UsageError("--weights is missing: what to fine-tune; training from nothing is maekit scratch")
    return training.run(Classification, config)


def scratch(config: ClassifyConfig) -> dict[str, Any]:
    """Train a classifier from nothing; returns {run, steps, loss, val_top1, ...}."""
    if config.weights:
        raise UsageError("--weights: scratch starts from nothing; training from weights is maekit finetune")
    return training.run(Classification, config)


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
