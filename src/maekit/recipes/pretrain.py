"""Masked pretraining."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
from maekit.inference.one_pass import seen_by
from maekit.models import mae
from maekit.models.mae import Draws, MaskedAutoencoder
from maekit.randomness import keys_tensor
from maekit.recipes import training
from maekit.recipes.training import Training
from maekit.report import page
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
        self._bad_held_out = BadImages(held_out, config.data.bad_share)
        self._classes = 0
        if train.classes and held_out.classes:
            used = used_labels(held_out)
            numbers = matching_classes(held_out.classes, train.classes, used)
            if numbers is not None:
                say_matching(held_out.text, held_out.classes, train.text, train.classes, used)
                self._classes = len(train.classes)
                self._held_out = RelabelledSource(held_out, train.classes, numbers)

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

    def features(self, model: MaskedAutoencoder, source: Source) -> Features:
        """Of as many images of a source, evenly spread, as the config allows; on every rank."""
        return Features(*self._world.gather_rows(*extract(model, self._batches(model, source))))

    def _batches(self, model: MaskedAutoencoder, source: Source) -> Iterator[Batch]:
        config = self._config
        return seen_by(
            model,
            source,
            bad=self._bad if source is self._train else self._bad_held_out,
            batch_size=config.schedule.micro_batch_limit,
            workers=config.data.workers,
            indices=some_of(source, config.validation.images),
            crop_share=config.validation.crop_share,
            world=self._world,
        )


class Pretraining(Training[PretrainConfig, MaskedAutoencoder]):
    """Masked pretraining."""

    verb = "pretrain"

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
        config, validation = self.config, None
        if self.held_out is not None:
            validation = Validation(config, self.source, self.held_out, world=self.world, bad=self.bad)
        return PretrainTask(self.model, seed=config.run.seed, validation=validation)

    def steps_between(self) -> int | None:
        if self.held_out is None:
            return None
        every = self.config.validation.every
        return max(1, self.plan.steps // VALIDATIONS) if every is None else self.steps_of(every)

    def finish(self, record: dict[str, Any], folder: Path | None) -> None:
        if warning := collapse(*self._rank(record)):
            log.warning("%s", warning)
        if folder is None:
            return
        sections = page.run_sections(folder)
        shown = reconstruction_picture(self.model, self.held_out or self.source, self.config.run.seed)
        if shown is not None:
            (folder / "pictures").mkdir(exist_ok=True)
            picture.save(shown, folder / "pictures" / "reconstruction.png")
            sections.append(page.Picture(shown, reconstruct.caption(self.model, "visible")))
        page.write(folder / "report.html", f"maekit pretrain {self.config.name}", sections)

    def _rank(self, record: dict[str, Any]) -> tuple[float, int]:
        """RankMe of the features at the end, and of how many images: held-out, or else some of the training ones."""
        options, source = self.config.validation, self.source
        if self.held_out is not None:
            return record.get("val_rankme", math.inf), min(len(self.held_out), options.images)
        self.model.eval()
        few = replace(self.config, validation=replace(options, images=_RANKED))
        some = Validation(few, source, source, world=self.world, bad=BadImages(source, 1.0))
        vectors = some.features(self.model, source).vectors
        return (rankme(vectors), len(vectors)) if len(vectors) else (math.inf, 0)


def run(config: PretrainConfig) -> dict[str, Any]:
    """Pretrain as the config says; returns {run, steps, loss, ...}.

    Leaves a run folder with config.json, metrics.jsonl, checkpoints, model.safetensors, a picture of reconstructions
    and report.html. Raises MaekitError in one line for whatever stands in the way.
    """
    return training.run(Pretraining, config)


def reconstruction_picture(model: MaskedAutoencoder, source: Source, seed: int) -> Image.Image | None:
    """masked | reconstruction | original of a few images, evenly spread over a source.

    None where no image can be read, and, which is said, where what the model predicts cannot be painted.
    """
    some = some_of(source, _SHOWN)
    batches = seen_by(
        model, source, bad=BadImages(source, 1.0), batch_size=_SHOWN, workers=0, indices=some, crop_share=1.0
    )
    first = next(batches, None)
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
