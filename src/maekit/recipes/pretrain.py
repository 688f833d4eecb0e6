"""Masked pretraining."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from maekit import masking, objective, parts
from maekit.config import PretrainConfig
from maekit.data.loader import BadImages, Batch
from maekit.data.sources import Source
from maekit.data.sources.elsewhere import some_of
from maekit.data.sources.labelled import RelabelledSource, matching_classes, say_matching, used_labels
from maekit.data.statistics import standardisation
from maekit.engine.distributed import World
from maekit.engine.evaluate import collapse, knn_predict, rankme
from maekit.errors import DataError, MaekitError
from maekit.inference import picture, reconstruct
from maekit.inference.features import Features, extract
from maekit.inference.one_pass import any_unreadable, seen_by
from maekit.models import mae
from maekit.models.mae import Draws, MaskedAutoencoder
from maekit.randomness import keys_tensor
from maekit.recipes import pictured, training
from maekit.recipes.pictured import Shown
from maekit.recipes.training import Training
from maekit.report import features, moments, page
from maekit.report.run import run_sections
from maekit.sections import Heading, Picture, Section
from maekit.weights import native
from maekit.weights.transfer import continue_from

log = logging.getLogger("maekit")

VALIDATIONS = 20  # a run, where the config does not say
_NEIGHBOURS = 20  # of the online kNN
_SHOWN = 6  # images in the report's picture
_RANKED = 500  # training images whose features are looked at in the end, where none are held out


@dataclass(frozen=True)
class MaskedBatch:
    """images: [N, C, H, W] as stored. masked: bool [N, L]. draws: what else chance decided."""

    images: Tensor
    masked: Tensor
    draws: Draws


class PretrainTask:
    """Paint what is hidden (arXiv 2111.06377), or whatever else the model's objective is."""

    averaged = "encoder."

    def __init__(self, model: MaskedAutoencoder, *, seed: int, validation: "Validation | None" = None) -> None:
        self.model, self._seed, self._validation = model, seed, validation

    def prepare(self, batch: Batch) -> "MaskedBatch":
        """A batch's masks, and what else its keys decide."""
        model = self.model.at(batch.images)
        mask = model.objective.mask
        keys = keys_tensor(self._seed, batch.epochs, batch.indices, batch.views)
        masked, keys = masking.draw_on(batch.images.device, mask, keys)
        return MaskedBatch(batch.images, masked, model.draw(masked, hidden=mask.hidden, keys=keys))

    def loss(self, prepared: "MaskedBatch") -> dict[str, Tensor]:
        """Mean error over the hidden patches of a batch."""
        model = self.model.at(prepared.images)
        images = model.standardise(prepared.images)
        predicted = model.predict(images, prepared.masked, prepared.draws)
        return {"loss": model.objective.loss(images, predicted.patches, predicted.index)}

    def evaluate(self) -> dict[str, float]:
        return {} if self._validation is None else self._validation.judge(self.model)

    def evaluate_average(self) -> dict[str, float]:
        return {} if self._validation is None else self._validation.judge_features(self.model)

    def rate_factors(self) -> dict[str, float]:
        return {}

    def metadata(self) -> dict[str, str]:
        return native.metadata(self.model)

    def average_metadata(self) -> dict[str, str]:
        return native.metadata(self.model, encoder_alone=True)


class Validation:
    """Whether pretraining works, seen on held-out images: the objective's loss, RankMe, and kNN where labels exist."""

    def __init__(
        self, config: PretrainConfig, train: Source, held_out: Source, *, world: World, bad: BadImages
    ) -> None:
        """bad: what is known of the training images."""
        self._config, self._train, self._held_out, self._world, self._bad = config, train, held_out, world, bad
        self.bad_held_out = BadImages(held_out, config.data.bad_share)
        self._classes = 0
        if train.classes and held_out.classes:
            used = used_labels(held_out)
            numbers = matching_classes(held_out.classes, train.classes, used)
            if numbers is not None:
                say_matching(held_out.text, held_out.classes, train.text, train.classes, used)
                self._classes = len(train.classes)
                self._held_out = RelabelledSource(held_out, train.classes, numbers)

    def images(self, most: int | None = None) -> int:
        """How many images are looked at to judge, at most so many of a kind, or as the config says."""
        most = most or self._config.validation.images
        return 2 * min(most, len(self._held_out)) + (min(most, len(self._train)) if self._classes else 0)

    def judge(self, model: MaskedAutoencoder) -> dict[str, float]:
        """val_loss, val_rankme, and val_knn where training and held-out images have the same classes."""
        total, count = 0.0, 0
        for batch in self._batches(model, self._held_out):
            total += float(self._loss(model, batch)) * len(batch)
            count += len(batch)
        sums = self._world.sum(torch.tensor([total, count], dtype=torch.float64, device=self._world.device))
        if not sums[1]:
            raise DataError(f"{self._held_out.text}: no validation image can be read")
        return {"val_loss": float(sums[0] / sums[1]), **self.judge_features(model)}

    def judge_features(self, model: MaskedAutoencoder) -> dict[str, float]:
        """What `judge` says of the encoder alone."""
        held_out = self.features(model, self._held_out)
        said = {"val_rankme": rankme(held_out.vectors)}
        if self._classes:
            known, held_out = self.features(model, self._train).labelled(), held_out.labelled()
            if len(known.labels) and len(held_out.labels):
                predicted = knn_predict(
                    known.vectors, known.labels, held_out.vectors, k=_NEIGHBOURS, classes=self._classes
                )
                said["val_knn"] = float((predicted == held_out.labels).double().mean())
        return said

    def _loss(self, model: MaskedAutoencoder, batch: Batch) -> Tensor:
        batch = batch.to(model.device)
        images = model.standardise(batch.images)
        keys = keys_tensor(self._config.run.seed, batch.indices)
        predicted = model(images, masking.draw_on(model.device, model.objective.mask, keys)[0])
        return model.objective.loss(images, predicted.patches, predicted.index)

    def features(self, model: MaskedAutoencoder, source: Source, most: int | None = None) -> Features:
        """Of as many images of a source, evenly spread, as the config, or `most`, allows; on every rank."""
        return Features(*self._world.gather_rows(*extract(model, self._batches(model, source, most))))

    def _batches(self, model: MaskedAutoencoder, source: Source, most: int | None = None) -> Iterator[Batch]:
        config = self._config
        return seen_by(
            model,
            source,
            bad=self._bad if source is self._train else self.bad_held_out,
            batch_size=config.schedule.micro_batch_limit,
            workers=config.data.workers,
            indices=some_of(source, min(config.validation.images, most or config.validation.images)),
            crop_share=config.validation.crop_share,
            world=self._world,
        )


class Pretraining(Training[PretrainConfig, MaskedAutoencoder]):
    """Masked pretraining."""

    verb = "pretrain"
    _validation: Validation | None = None

    def chosen(self, train: Source, held_out: Source | None) -> tuple[Source, Source | None]:
        parts.say(self.config.mask.kind, self.config.target.kind, self.config.target.loss)
        return train, held_out

    def build(self) -> MaskedAutoencoder:
        config = self.config
        mean, std = self.world.patiently(lambda: standardisation(config.data, self.source, config.model.channels))
        model = mae.build(config.model, config.target, config.mask, mean, std, seed=config.run.seed)
        objective.check(model.objective, config.target, model.geometry)
        if config.weights:
            continue_from(model, config.weights)
        for *_, image_hw in config.schedule.sizes(model.config.image_hw, self.plan.steps)[:-1]:
            model.also_at(image_hw)
        if untrained := model.family.untrained(model.encoder, config.model):
            log.warning("model.image_size: %s", untrained)
        return model

    def make_task(self) -> PretrainTask:
        if self.held_out is not None:
            self._validation = Validation(self.config, self.source, self.held_out, world=self.world, bad=self.bad)
        return PretrainTask(self.model, seed=self.config.run.seed, validation=self._validation)

    def steps_between(self) -> int | None:
        if self._validation is None:
            return None
        if (every := self.config.validation.every) is not None:
            return self.steps_of(every)
        return max(self.plan.steps // VALIDATIONS, math.ceil(self._validation.images() / self.plan.batch_size))

    def looks_at(self) -> list[int]:
        return moments.steps_of(self.plan.steps)

    def look(self, folder: Path | None, step: int) -> None:
        if step == 0 and self.held_out is not None:
            said, images = self.task.evaluate(), min(len(self.held_out), self.config.validation.images)
            if folder is not None:
                pictured.write_untrained(folder, said, images)
        if folder is not None:
            self._moments.paint(self.model, folder, step)

    @cached_property
    def _shown(self) -> Shown:
        """What the report is about: held-out images, or else training ones."""
        if self.held_out is None or self._validation is None:
            return Shown(self.source, any_unreadable(self.source))  # training counts its own
        return Shown(self.held_out, self._validation.bad_held_out)

    @cached_property
    def _moments(self) -> pictured.Moments:
        return pictured.Moments(self._shown, self.config.run.seed)

    def finish(self, record: dict[str, Any], folder: Path | None) -> None:
        self.model.eval()
        found = self._features()
        if self.held_out is not None and "val_rankme" in record:
            rank, images = record["val_rankme"], min(len(self.held_out), self.config.validation.images)
        else:
            rank, images = (rankme(found.vectors), len(found.vectors)) if len(found.vectors) else (math.inf, 0)
        if warning := collapse(rank, images):
            log.warning("%s", warning)
        if folder is not None:
            with pictured.left_out("itself; the weights are whole"):
                self._report(folder, found)

    def _report(self, folder: Path, found: Features) -> None:
        sections: list[Section] = []
        with pictured.left_out("its reconstructions"):
            painted = reconstruction_picture(self.model, self._shown, self.config.run.seed)
            if painted is not None:
                (folder / "pictures").mkdir(exist_ok=True)
                picture.save(painted, folder / "pictures" / "reconstruction.png")
                said = reconstruct.caption(self.model, "visible")
                sections += [Heading("Painted at the end"), Picture(painted, said)]
        with pictured.left_out("its features"):
            sections += pictured.feature_sections(self.model, self._shown, found)
        with pictured.left_out("its images"):
            data = self.config.data
            sections += pictured.data_sections(self.source, data.source, self.config.model.channels)
        page.write(folder / "report.html", f"maekit pretrain {self.config.name}", run_sections(folder, sections))

    def _features(self) -> Features:
        """Of held-out images, or else of some training ones, as many as a map shows."""
        if self._validation is not None and self.held_out is not None:
            return self._validation.features(self.model, self.held_out, features.MOST)
        some = Validation(self.config, self.source, self.source, world=self.world, bad=any_unreadable(self.source))
        return some.features(self.model, self.source, _RANKED)


def run(config: PretrainConfig) -> dict[str, Any]:
    """Pretrain as the config says; returns {run, steps, loss, ...}.

    Leaves a run folder with config.json, metrics.jsonl, checkpoints, model.safetensors, a picture of reconstructions
    and report.html. Raises MaekitError in one line for whatever stands in the way.
    """
    return training.run(Pretraining, config)


def reconstruction_picture(model: MaskedAutoencoder, shown: Shown, seed: int) -> Image.Image | None:
    """masked | reconstruction | original of a few images, evenly spread over a source.

    None where no image can be read, and, which is said, where what the model predicts cannot be painted.
    """
    first = shown.first(model, _SHOWN)
    if first is None:
        return None
    batch = first.to(model.device)
    masked, _ = masking.draw_on(model.device, model.objective.mask, keys_tensor(seed, batch.indices))
    model.eval()
    caption = reconstruct.caption(model, "visible", batch.images)
    try:
        return picture.grid(reconstruct.rows(model, batch.images, masked), caption=caption)
    except MaekitError as error:
        log.info("no picture of reconstructions: %s", error)
        return None
