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

from maekit import masking, targets
from maekit.config import PretrainConfig, files
from maekit.data.loader import BadImages, Batch, eval_batches
from maekit.data.ranges import known_range
from maekit.data.sources import Source
from maekit.data.sources.labelled import RelabelledSource, matching_classes, say_matching, used_labels
from maekit.data.statistics import evenly_spread, standardisation
from maekit.engine import loop, memory
from maekit.engine.distributed import World
from maekit.engine.drift import identity
from maekit.engine.evaluate import collapse, knn_predict, rankme
from maekit.engine.schedule import Plan
from maekit.errors import DataError
from maekit.inference import picture, reconstruct
from maekit.inference.features import Features, extract
from maekit.inference.one_pass import crop_share_of
from maekit.models import mae
from maekit.models.mae import Draws, MaskedAutoencoder
from maekit.randomness import keys_tensor
from maekit.recipes import execution, planning
from maekit.report import page
from maekit.weights import native
from maekit.weights.transfer import continue_from

log = logging.getLogger("maekit")

_VALIDATIONS = 20  # a run, where the config does not say
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
    """Paint what is hidden (arXiv 2111.06377)."""

    averaged = "encoder."

    def __init__(self, config: PretrainConfig, model: MaskedAutoencoder, validation: "Validation | None") -> None:
        self.config, self.model, self.validation = config, model, validation
        self.hidden = masking.hidden_count(config.mask, model.grid)

    def prepare(self, batch: Batch) -> "MaskedBatch":
        """A batch's masks, and what else its keys decide."""
        keys = keys_tensor(self.config.run.seed, batch.epochs, batch.indices, batch.views)
        masked = masking.draw(self.config.mask, self.model.grid, keys)
        return MaskedBatch(batch.images, masked, self.model.draw(masked, hidden=self.hidden, keys=keys))

    def loss(self, prepared: "MaskedBatch") -> dict[str, Tensor]:
        """Mean error over the hidden patches of a batch."""
        images = self.model.standardise(prepared.images)
        prediction = self.model.predict(images, prepared.masked, prepared.draws)
        target = targets.make(self.config.target, images, self.model.patch, prediction.index)
        return {"loss": targets.loss(self.config.target, prediction.patches, target)}

    def evaluate(self) -> dict[str, float]:
        return {} if self.validation is None else self.validation.judge(self.model)

    def evaluate_average(self) -> dict[str, float]:
        return {} if self.validation is None else self.validation.judge_features(self.model)

    def rate_factors(self) -> dict[str, float]:
        return {}

    def metadata(self) -> dict[str, str]:
        return native.metadata(self.model)

    def average_metadata(self) -> dict[str, str]:
        return native.metadata(self.model, encoder_alone=True)


class Validation:
    """Whether pretraining works, seen on held-out images: reconstruction loss, RankMe, and kNN where labels exist."""

    def __init__(
        self, config: PretrainConfig, train: Source, held_out: Source, world: World, bad: BadImages | None = None
    ) -> None:
        """bad: what is known of the training images."""
        self._config, self._train, self._world = config, train, world
        self._classes, self._held_out = 0, held_out
        if train.classes and held_out.classes:
            used = used_labels(held_out)
            numbers = matching_classes(held_out.classes, train.classes, used)
            if numbers is not None:
                say_matching(held_out.text, held_out.classes, train.text, train.classes, used)
                self._classes = len(train.classes)
                self._held_out = RelabelledSource(held_out, train.classes, numbers)
        self._bad = BadImages(train, config.data.bad_share) if bad is None else bad
        self._bad_held_out = BadImages(held_out, config.data.bad_share)

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
            known = self.features(model, self._train)
            known, held_out = known.labelled(), held_out.labelled()
            if len(known.labels) and len(held_out.labels):
                predicted = knn_predict(
                    known.vectors, known.labels, held_out.vectors, k=_NEIGHBOURS, classes=self._classes
                )
                said["val_knn"] = float((predicted == held_out.labels).double().mean())
        return said

    def _loss(self, model: MaskedAutoencoder, batch: Batch) -> Tensor:
        batch = batch.to(model.device)
        images = model.standardise(batch.images)
        masked = masking.draw(self._config.mask, model.grid, keys_tensor(self._config.run.seed, batch.indices))
        prediction = model(images, masked)
        target = targets.make(self._config.target, images, model.patch, prediction.index)
        return targets.loss(self._config.target, prediction.patches, target)

    def features(self, model: MaskedAutoencoder, source: Source) -> Features:
        """Of as many images of a source, evenly spread, as the config allows; on every rank."""
        part = extract(model, self._batches(model, source))
        return Features(*self._world.gather_rows(part.vectors, part.labels, part.indices))

    def _batches(self, model: MaskedAutoencoder, source: Source) -> Iterator[Batch]:
        return eval_batches(
            source,
            indices=evenly_spread(len(source), self._config.validation.images).tolist(),
            image_hw=self._config.model.image_hw,
            channels=self._config.model.channels,
            crop_share=crop_share_of(model, self._config.validation.crop_share),
            batch_size=self._config.schedule.micro_batch_limit,
            workers=self._config.data.workers,
            bad=self._bad if source is self._train else self._bad_held_out,
            rank=self._world.rank,
            world_size=self._world.size,
            value_range=known_range(self._config.data.range),
        )


def run(config: PretrainConfig) -> dict[str, Any]:
    """Pretrain as the config says; returns {run, steps, loss, ...}.

    Leaves a run folder with config.json, metrics.jsonl, checkpoints, model.safetensors, a picture of reconstructions
    and report.html. Raises MaekitError in one line for whatever stands in the way.
    """
    with execution.join_world(config.run) as world:
        source, held_out = execution.open_sources(config, world)
        if held_out is not None:
            execution.warn_of_shared(source, held_out, world)
        config, plan = planning.planned(config, len(source), world)
        config = execution.with_crop_share(execution.with_range(config, source), config.model.image_hw)
        mean, std = world.patiently(lambda: standardisation(config.data, source, config.model.channels))
        model = mae.build(config, mean, std)
        model.crop_share, model.value_range = config.validation.crop_share, known_range(config.data.range)
        if config.weights:
            continue_from(model, config.weights)
        model.recompute_activations(config.run.checkpoint_activations)
        bad = BadImages(source, config.data.bad_share)
        validation = Validation(config, source, held_out, world, bad) if held_out is not None else None
        task = PretrainTask(config, model, validation)
        with (
            execution.hold_folder(config.run, config.name, world) as folder,
            memory.explained(plan, config.run, config.model.image_hw, world.device),
        ):
            fingerprint = world.patiently(source.fingerprint)
            execution.write_down(folder, config, source, fingerprint, plan, world)
            execution.print_header("pretrain", config, model, source, plan, world, folder)
            if untrained := model.family.untrained(model.encoder, config.model):
                log.warning("model.image_size: %s", untrained)
            outcome = loop.train(
                task,
                lambda start: execution.training_batches(config, config.model, source, plan, start, world, bad),
                plan=plan,
                optimizer=config.optimizer,
                config=config.run,
                world=world,
                folder=folder,
                facts={"identity": identity(files.to_dict(config), fingerprint)},
                evaluate_every=None if validation is None else _evaluate_every(config, plan),
            )
            unreadable = execution.count_unreadable(bad, world)
            if folder is not None:
                execution.write_weights(folder, task, outcome.averaged)
            rank, images = _rank(config, model, source, held_out, outcome.record, world)
            if warning := collapse(rank, images):
                log.warning("%s", warning)
            if folder is not None:
                write_report(folder.path, config, model, held_out or source)
            return execution.answer(folder, outcome, unreadable, source)


def _rank(
    config: PretrainConfig,
    model: MaskedAutoencoder,
    source: Source,
    held_out: Source | None,
    record: dict[str, Any],
    world: World,
) -> tuple[float, int]:
    """RankMe of the features at the end, and of how many images: held-out ones, or else some of the training ones."""
    if held_out is not None:
        return record.get("val_rankme", math.inf), min(len(held_out), config.validation.images)
    few = replace(config, validation=replace(config.validation, images=_RANKED))
    model.eval()
    vectors = Validation(few, source, source, world, BadImages(source, 1.0)).features(model, source).vectors
    return (rankme(vectors), len(vectors)) if len(vectors) else (math.inf, 0)


def _evaluate_every(config: PretrainConfig, plan: Plan) -> int:
    if config.validation.every is None:
        return max(1, plan.steps // _VALIDATIONS)
    return execution.steps_of(config.validation.every, plan)


def write_report(path: Path, config: PretrainConfig, model: MaskedAutoencoder, source: Source) -> None:
    """report.html, and the picture in it under pictures/."""
    sections = list(page.run_sections(path))
    if (shown := reconstruction_picture(config, model, source)) is not None:
        (path / "pictures").mkdir(exist_ok=True)
        picture.save(shown, path / "pictures" / "reconstruction.png")
        sections.append(page.Picture(shown, reconstruct.caption(model, "visible")))
    page.write(path / "report.html", f"maekit pretrain {config.name}", sections)


def reconstruction_picture(config: PretrainConfig, model: MaskedAutoencoder, source: Source) -> Image.Image | None:
    """masked | reconstruction | original of a few images, evenly spread over a source; None where none can be read."""
    batches = eval_batches(
        source,
        indices=evenly_spread(len(source), _SHOWN).tolist(),
        image_hw=config.model.image_hw,
        channels=config.model.channels,
        crop_share=1.0,
        batch_size=_SHOWN,
        workers=0,
        bad=BadImages(source, 1.0),
        value_range=model.value_range,
    )
    first = next(batches, None)
    if first is None:
        return None
    batch = first.to(model.device)
    masked = masking.draw(config.mask, model.grid, keys_tensor(config.run.seed, batch.indices))
    model.eval()
    caption = reconstruct.caption(model, "visible", batch.images)
    return picture.grid(reconstruct.rows(model, batch.images, masked), caption=caption)
