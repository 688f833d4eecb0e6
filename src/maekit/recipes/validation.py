"""What held-out images say of a pretraining.

Legend: N images, V views of each, D feature width.
"""

import logging
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from maekit import masking
from maekit.config import PretrainConfig
from maekit.data.loader import BadImages, Batch
from maekit.data.sources import Source
from maekit.data.sources.elsewhere import some_of
from maekit.data.sources.labelled import RelabelledSource, matching_classes, say_matching, used_labels
from maekit.engine.distributed import World
from maekit.engine.evaluate import alpha_req, knn_predict, lidar, rankme
from maekit.errors import DataError
from maekit.inference.features import Features, extract
from maekit.inference.one_pass import seen_by
from maekit.models.cost import features_gflop, forward_gflop
from maekit.models.mae import MaskedAutoencoder
from maekit.randomness import keys_tensor

log = logging.getLogger("maekit")

TIMES = 20  # a run, where the config does not say
MOST, FEWEST = 5000, 1000  # images, held-out and training ones each, where the config does not say
SHARE = 0.2  # most that validations take of what training does, unless that is for the fewest
_NEIGHBOURS = 20  # of the online kNN
_VIEWED = 1000  # images at most for LiDAR, as in its paper
_VIEW = 0x76696577  # keeps these draws apart from others with the same seed


class Validation:
    """Whether pretraining works, seen on held-out images.

    The objective's loss, what the spectrum of the features tells, LiDAR by option, and kNN where labels exist.
    """

    def __init__(
        self, config: PretrainConfig, train: Source, held_out: Source, *, world: World, bad: BadImages
    ) -> None:
        """bad: what is known of the training images."""
        self._config, self._train, self._held_out, self._world, self._bad = config, train, held_out, world, bad
        self._most = config.validation.images or MOST
        self.bad_held_out = BadImages(held_out, config.data.bad_share)
        self.classes = 0
        """That training and held-out images have in common; without any there is no kNN."""
        if train.classes and held_out.classes:
            used = used_labels(held_out)
            numbers = matching_classes(held_out.classes, train.classes, used)
            if numbers is not None:
                say_matching(held_out.text, held_out.classes, train.text, train.classes, used)
                self.classes = len(train.classes)
                self._held_out = RelabelledSource(held_out, train.classes, numbers)

    @property
    def images(self) -> int:
        """How many held-out images are looked at."""
        return min(self._most, len(self._held_out))

    def afford(self, model: MaskedAutoencoder, *, trained: int, times: int) -> int:
        """Settle how many images of a kind are looked at: as the config says, else few in a short run, as they cost
        what steps do.

        trained: images that the run learns from, each as often as it is seen. times: validations.
        """
        if self._config.validation.images is not None:
            return self._most
        forward, features = forward_gflop(model), features_gflop(model)
        one = forward + features * (2 if self.classes else 1)  # of each kind, where kNN wants training images too
        self._most = max(FEWEST, min(MOST, int(SHARE * 3 * forward * trained / (times * one))))
        kinds = [("held-out", self._held_out), *([("training", self._train)] if self.classes else [])]
        if any(self._most < min(MOST, len(source)) for _, source in kinds):
            looked = " and ".join(f"{min(self._most, len(s)):,} of {len(s):,} {kind}" for kind, s in kinds)
            log.info(
                "validation looks at %s images: more would take over %.0f%% of the time of training; "
                "--validation.images says otherwise",
                looked, 100 * SHARE,
            )  # fmt: skip
        return self._most

    def passes(self, most: int | None = None) -> int:
        """Images that pass the encoder in a validation, each as often as it does; `most` of a kind, or as usual."""
        most = most or self._most
        return 2 * min(most, len(self._held_out)) + (min(most, len(self._train)) if self.classes else 0)

    def judge(self, model: MaskedAutoencoder) -> dict[str, float]:
        """val_loss, val_rankme, val_alpha; val_lidar by option; val_knn where both have the same classes.

        val_alpha is left out of too few images.
        """
        total, count = 0.0, 0
        for batch in self._batches(model, self._held_out):
            total += float(self._loss(model, batch)) * len(batch)
            count += len(batch)
        sums = self._world.sum(torch.tensor([total, count], dtype=torch.float64, device=self._world.device))
        if not sums[1]:
            raise DataError(f"{self._held_out.text}: no validation image can be read")
        said = {"val_loss": float(sums[0] / sums[1]), **self.judge_features(model)}
        if self._config.validation.lidar_views is not None:
            said["val_lidar"] = lidar(self._views(model, self._config.validation.lidar_views))
        return said

    def judge_features(self, model: MaskedAutoencoder) -> dict[str, float]:
        """What `judge` says of the encoder alone."""
        held_out = self.features(model, self._held_out)
        said, alpha = {"val_rankme": rankme(held_out.vectors)}, alpha_req(held_out.vectors)
        if not math.isnan(alpha):
            said["val_alpha"] = alpha
        if self.classes:
            known, held_out = self.features(model, self._train).labelled(), held_out.labelled()
            if len(known.labels) and len(held_out.labels):
                predicted = knn_predict(
                    known.vectors, known.labels, held_out.vectors, k=_NEIGHBOURS, classes=self.classes
                )
                said["val_knn"] = float((predicted == held_out.labels).double().mean())
        return said

    def _loss(self, model: MaskedAutoencoder, batch: Batch) -> Tensor:
        batch = batch.to(model.device)
        images = model.standardise(batch.images)
        keys = keys_tensor(self._config.run.seed, batch.indices)
        predicted = model(images, masking.draw_on(model.device, model.objective.mask, keys)[0])
        return model.objective.loss(images, predicted.patches, predicted.index)

    def _views(self, model: MaskedAutoencoder, count: int) -> Tensor:
        """Features [N, V, D] of so many views of each image, each what another mask shows; on every rank."""
        found, seed, mask = [], self._config.run.seed, model.objective.mask
        for batch in self._batches(model, self._held_out, _VIEWED):
            batch = batch.to(model.device)
            images = model.standardise(batch.images)
            keys = [keys_tensor(_VIEW, seed, view, batch.indices) for view in range(count)]
            views = [model.visible_features(images, masking.draw_on(model.device, mask, one)[0]) for one in keys]
            found.append(torch.stack(views, dim=1).cpu())
        return self._world.gather_rows(torch.cat(found) if found else torch.empty(0))[0]

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
            indices=some_of(source, min(self._most, most or self._most)),
            crop_share=config.validation.crop_share,
            world=self._world,
        )
