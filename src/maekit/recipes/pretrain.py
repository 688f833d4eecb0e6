"""Masked pretraining."""

import logging
import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from maekit import masking, objective, parts
from maekit.config import PretrainConfig
from maekit.data.loader import Batch
from maekit.data.sources import Source
from maekit.data.statistics import standardisation
from maekit.engine.evaluate import collapse, rankme, tells_alpha
from maekit.engine.patience import Patience
from maekit.engine.task import Task
from maekit.errors import MaekitError, UsageError
from maekit.inference import picture, reconstruct
from maekit.inference.features import Features
from maekit.inference.one_pass import any_unreadable
from maekit.models import mae
from maekit.models.mae import Draws, MaskedAutoencoder
from maekit.randomness import keys_tensor
from maekit.recipes import pictured, training
from maekit.recipes.pictured import Shown
from maekit.recipes.training import Training
from maekit.recipes.validation import TIMES, Validation
from maekit.report import features, moments, page
from maekit.report.run import run_sections
from maekit.sections import Heading, Picture, Section
from maekit.weights import native
from maekit.weights.transfer import continue_from

log = logging.getLogger("maekit")

_SHOWN = 6  # images in the report's picture
_RANKED = 500  # training images whose features are looked at in the end, where none are held out


@dataclass(frozen=True)
class MaskedBatch:
    """images: [N, C, H, W] as stored. masked: bool [N, L]. draws: what else chance decided."""

    images: Tensor
    masked: Tensor
    draws: Draws


class PretrainTask(Task):
    """Paint what is hidden (arXiv 2111.06377), or whatever else the model's objective is."""

    model: MaskedAutoencoder
    averaged = "encoder."

    def __init__(self, model: MaskedAutoencoder, *, seed: int, validation: Validation | None = None) -> None:
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

    def metadata(self) -> dict[str, str]:
        return native.metadata(self.model)

    def average_metadata(self) -> dict[str, str]:
        return native.metadata(self.model, encoder_alone=True)


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
            asked, plan = self.config.validation, self.plan
            times = TIMES if asked.every is None else plan.steps // self.steps_of(asked.every)
            images = self._validation.afford(self.model, trained=plan.steps * plan.batch_size, times=times + 1)
            self.config = replace(self.config, validation=replace(asked, images=images))
        return PretrainTask(self.model, seed=self.config.run.seed, validation=self._validation)

    def steps_between(self) -> int | None:
        if self._validation is None:
            return None
        if (every := self.config.validation.every) is not None:
            return self.steps_of(every)
        # a short run looks less often too: between two looks it learns from as many images as one looks at
        return max(self.plan.steps // TIMES, math.ceil(self._validation.passes() / self.plan.batch_size))

    def patience(self) -> Patience | None:
        """Raises UsageError for a measure that these images do not give."""
        asked = self.config.validation
        patience = Patience.of(asked.stop_after, asked.stop_by, self.config.run.branch)
        if patience is None or self._validation is None:
            return None
        if asked.stop_by == "knn" and not self._validation.classes:
            raise UsageError(
                "validation.stop_by: kNN needs labels of the same classes in --data and --val; take rankme"
            )
        images = self._validation.images
        if asked.stop_by == "alpha" and not tells_alpha(images, self.model.width):
            raise UsageError(f"validation.stop_by: {images} held-out images are too few for alpha-ReQ; take rankme")
        return patience

    def looks_at(self) -> list[int]:
        return moments.steps_of(self.plan.steps)

    def look(self, folder: Path | None, step: int) -> None:
        if step == 0 and self._validation is not None:
            said = self.task.evaluate()
            if folder is not None:
                pictured.write_untrained(folder, said, self._validation.images)
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
        if self._validation is not None and "val_rankme" in record:
            rank, images = record["val_rankme"], self._validation.images
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
            sections += pictured.data_sections(self.source, self.config.data.source, self.config.model.channels)
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
    some = shown.masked(model, _SHOWN, seed)
    if some is None:
        return None
    model.eval()
    try:
        return picture.grid(reconstruct.rows(model, *some), caption=reconstruct.caption(model, "visible", some[0]))
    except MaekitError as error:
        log.info("no picture of reconstructions: %s", error)
        return None
