"""Batches of images, in an order and with an augmentation that no number of workers or ranks changes.

Shapes: N images of a batch, C channels, H and W pixels.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maekit.config import AugmentConfig, DataConfig
from maekit.config.beforehand import check_augment
from maekit.data.decode import Range, decode, decode_reduced
from maekit.data.ranges import known_range
from maekit.data.reduced import Reduced
from maekit.data.sampler import Sample
from maekit.data.sources import Source
from maekit.data.transforms import EvalTransform, TrainTransform
from maekit.data.windows import fetched_ahead, stream_of
from maekit.data.workers import map_in_order, worker_count
from maekit.errors import DataError, ImageError
from maekit.randomness import numpy_generator
from maekit.sending import send

_REPLACEMENT = 0x7265706C  # keeps these draws apart from others with the same seed, epoch and index
_REPLACEMENT_TRIES = 100
_ALWAYS_TOLERATED = 10
_NAMED_AT_MOST = 10

_log = logging.getLogger("maekit")


@dataclass
class Batch:
    """Images and what they are."""

    images: Tensor
    """[N, C, H, W] uint8, or float32 in [0, 1]."""
    labels: Tensor
    """[N] int64, -1 where an image has none."""
    indices: Tensor
    """[N] int64: which images of the source these are; a replacement for a bad image goes by its own number."""
    epochs: Tensor
    """[N] int64: in which pass over the source."""
    views: Tensor
    """[N] int64: which of the crops of an image."""

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> "Batch":
        """The batch with images and labels on a device, which is not waited for; its numbers stay where they are."""
        return replace(self, images=send(self.images, device), labels=send(self.labels, device))

    def pin_memory(self) -> "Batch":
        """The batch with images and labels in memory that a GPU can fetch from by itself."""
        return replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory())


@dataclass
class _Loaded:
    """What a worker hands back: a batch, or None where too little was readable, and what went wrong on the way."""

    batch: Batch | None
    bad: list[tuple[int, str]]

    def pin_memory(self) -> "_Loaded":
        return _Loaded(None if self.batch is None else self.batch.pin_memory(), self.bad)


class BadImages:
    """Images of one source that cannot be read: named once each in the log, tolerated up to a share.

    A share above 0 always tolerates ten, so that a small folder with a few broken files can be used; 0 tolerates none.
    Of several processes each knows what it met itself, and what it was told that others met.
    """

    def __init__(self, source: Source, share: float) -> None:
        self.source = source
        self._tolerated = max(int(share * len(source)), _ALWAYS_TOLERATED) if share else 0
        self._reasons: dict[int, str] = {}
        self._told = 0

    def __len__(self) -> int:
        return len(self._reasons)

    def share(self, gather: Callable[[list[tuple[int, str]]], list[tuple[int, str]]]) -> None:
        """Have what all processes met since they last did this. gather: one list of all of theirs.

        All call it. Raises DataError in all where they are too many.
        """
        for index, reason in gather(list(self._reasons.items())[self._told :]):
            self.add(index, reason)
        self._told = len(self)

    def found(self) -> list[tuple[str, str]]:
        """(path, reason) of each, by their order in the source."""
        return [(self.source.path(index), reason) for index, reason in sorted(self._reasons.items())]

    def add(self, index: int, reason: str) -> None:
        """Note an image, once. Raises DataError with the list where they are too many, or all."""
        if index in self._reasons:
            return
        self._reasons[index] = reason
        _log.warning("%s: cannot be used: %s", self.source.path(index), reason)
        total = len(self.source)
        if len(self) == total:
            raise DataError(f"{self.source.text}: none of its {total} images can be read: {self.summary()}")
        if len(self) > self._tolerated:
            raise DataError(
                f"{self.source.text}: {len(self)} of {total} images cannot be read, more than the {self._tolerated} "
                f"that data.bad_share tolerates: {self.summary()}"
            )

    def summary(self) -> str:
        """The first ten with their reasons, and how many more there are, in one line."""
        named = [f"{path} ({reason})" for path, reason in self.found()[:_NAMED_AT_MOST]]
        more = len(self) - len(named)
        return "; ".join(named) + (f"; and {more} more" if more > 0 else "")


def train_batches(
    source: Source,
    config: DataConfig,
    augment: AugmentConfig,
    *,
    image_hw: tuple[int, int],
    channels: int,
    seed: int,
    batch_size: int,
    micro_batch: int,
    start_step: int,
    total_steps: int,
    rank: int,
    world_size: int,
    bad: BadImages,
) -> Iterator[Batch]:
    """One rank's micro-batches of steps start_step to total_steps - 1, in order; a late start costs nothing.

    Close the iterator to end its workers. An image that cannot be read gives its place to another, drawn by seed,
    epoch and index. Raises UsageError at once for an augmentation these channels cannot have, and DataError, when it
    comes to it, where too many images are bad or a worker dies.
    """
    check_augment(augment, channels)
    stream = stream_of(source, seed, config.shuffle, augment.repeats)
    items = stream.micro_batches(
        start_step, total_steps, batch_size=batch_size, micro_batch=micro_batch, rank=rank, world_size=world_size
    )
    transform = TrainTransform(augment, image_hw)
    work = _TrainingWork(source, channels, transform, seed, known_range(config.range), config.decode)
    return _batches(map_in_order(work, items, worker_count(config.workers)), bad)


def eval_batches(
    source: Source,
    *,
    indices: Sequence[int] | NDArray[np.int64] | None,
    image_hw: tuple[int, int],
    channels: int,
    crop_share: float,
    batch_size: int,
    workers: int | None,
    bad: BadImages,
    rank: int = 0,
    world_size: int = 1,
    value_range: Range | None = None,
) -> Iterator[Batch]:
    """Every image once, in order, or those at `indices`; the last batch holds what is left. Epochs and views are 0.

    value_range: of the model that is to see them, which it was trained with.

    Each of world_size ranks has a contiguous part. An image that cannot be read is left out of its batch. Raises
    DataError where too many are.
    """
    chosen = np.arange(len(source)) if indices is None else np.asarray(indices, dtype=np.int64)
    mine = np.array_split(chosen, world_size)[rank]
    items = (mine[start : start + batch_size].tolist() for start in range(0, len(mine), batch_size))
    work = partial(_evaluated, source, channels, EvalTransform(image_hw, crop_share), value_range)
    read = map_in_order(work, fetched_ahead(source, mine, items), worker_count(workers))
    return _batches(read, bad, skip_empty=True)


def _batches(results: Iterator[_Loaded], bad: BadImages, *, skip_empty: bool = False) -> Iterator[Batch]:
    for loaded in results:
        for index, reason in loaded.bad:
            bad.add(index, reason)
        if loaded.batch is not None:
            yield loaded.batch
        elif not skip_empty:
            raise DataError(f"no readable image among {_REPLACEMENT_TRIES} drawn: {bad.summary()}")


@dataclass
class _TrainingWork:
    """Samples to augmented images. Views of one image that follow each other share its decoding.

    Also where a micro-batch ends between them, if this process makes the next one too.
    """

    source: Source
    channels: int
    transform: TrainTransform
    seed: int
    value_range: Range | None
    decoding: Literal["full", "reduced"]
    _last: tuple[tuple[int, int], tuple[int, Tensor | Reduced] | None] = field(default=((-1, -1), None), init=False)
    """(epoch, index) of the last image of a micro-batch and what was read for it, as its other views may follow."""

    def __call__(self, samples: list[Sample]) -> _Loaded:
        images: list[Tensor] = []
        shown: list[Sample] = []
        bad: list[tuple[int, str]] = []
        for (epoch, index), views in groupby(samples, key=lambda sample: (sample.epoch, sample.index)):
            readable = self._last[1] if self._last[0] == (epoch, index) else self._readable(epoch, index, bad)
            if readable is None:
                return _Loaded(None, bad)
            self._last = ((epoch, index), readable)
            actual, image = readable
            for sample in views:
                images.append(self.transform(image, self.seed, epoch, actual, sample.view))
                shown.append(Sample(epoch, actual, sample.view))
        return _Loaded(_batch(self.source, images, shown), bad)

    def _readable(self, epoch: int, index: int, bad: list[tuple[int, str]]) -> tuple[int, Tensor | Reduced] | None:
        """The image at the index, or the first readable of those drawn to replace it."""
        draw = numpy_generator(_REPLACEMENT, self.seed, epoch, index)
        candidate = index
        for _ in range(_REPLACEMENT_TRIES):
            try:
                return candidate, self._decoded(epoch, candidate)
            except ImageError as error:
                bad.append((candidate, str(error)))
            candidate = int(draw.integers(len(self.source)))
        return None

    def _decoded(self, epoch: int, index: int) -> Tensor | Reduced:
        """The image, or as much of it as all its views need, also those of another micro-batch: pixels are to be the
        same however batches are cut."""
        data = self.source.read(index)
        if self.decoding == "full":
            return decode(data, self.channels, value_range=self.value_range)
        keys = [(self.seed, epoch, index, view) for view in range(self.transform.augment.repeats)]
        return decode_reduced(data, self.channels, partial(self.transform.factor, keys), value_range=self.value_range)


def _evaluated(
    source: Source, channels: int, transform: EvalTransform, value_range: Range | None, indices: list[int]
) -> _Loaded:
    images, shown, bad = [], [], []
    for index in indices:
        try:
            image = decode(source.read(index), channels, value_range=value_range)
            images.append(transform(image))
            shown.append(Sample(0, index, 0))
        except ImageError as error:
            bad.append((index, str(error)))
    return _Loaded(_batch(source, images, shown) if images else None, bad)


def stack(images: list[Tensor]) -> Tensor:
    """Images [C, H, W] of one size → [N, C, H, W]: uint8, or float32 in [0, 1] where any of them is."""
    if any(image.is_floating_point() for image in images):
        images = [image if image.is_floating_point() else image.float() / 255 for image in images]
    return torch.stack(images)


def _batch(source: Source, images: list[Tensor], samples: list[Sample]) -> Batch:
    labels = [source.label(sample.index) for sample in samples]
    return Batch(
        images=stack(images),
        labels=torch.tensor([-1 if label is None else label for label in labels]),
        indices=torch.tensor([sample.index for sample in samples]),
        epochs=torch.tensor([sample.epoch for sample in samples]),
        views=torch.tensor([sample.view for sample in samples]),
    )
