"""Every image of a source once, as evaluation sees it: resized, in order, with a bar, unreadable ones left out."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from maekit.config.data import crop_share_for
from maekit.config.verbs import SeenOptions
from maekit.data.loader import BadImages, Batch, eval_batches
from maekit.data.ranges import say_little_use
from maekit.data.sources import Source
from maekit.data.sources.passed_over import printable as printable
from maekit.data.sources.source import is_image_name
from maekit.engine.distributed import World, join
from maekit.engine.progress import counter
from maekit.errors import WeightsError
from maekit.models.encoder import ImageEncoder

_A_DAY = 86_400.0  # seconds


def crop_share_of(model: ImageEncoder, asked: float | None) -> float:
    """The share of the centre crop in which verbs see images: as asked, else the model's own, else by its size."""
    return asked or model.crop_share or crop_share_for(model.config.image_hw)


def together(device: str) -> AbstractContextManager[World]:
    """The processes that share a pass. One may be done long before another: none is waited for but if it is lost."""
    return join(device, patience=_A_DAY)


def one_pass(
    source: Source, model: ImageEncoder, options: SeenOptions, bad: BadImages, world: World | None = None
) -> Iterator[Batch]:
    """Batches of all images, or of this process's part of them, at the model's size.

    Raises DataError where more are unreadable than `bad` tolerates.
    """
    world = world or World()
    if model.value_range is None:
        say_little_use(source, model.config.channels, "these weights know no other range; train with --data.range")
    few = options.workers is None and len(source) <= options.batch_size  # a process would take longer to start
    workers = 0 if few else options.workers
    batches = seen_by(
        model, source, bad=bad, batch_size=options.batch_size, workers=workers, crop_share=options.crop_share,
        world=world,
    )  # fmt: skip
    yield from counted(batches, -(-len(source) // world.size))


def counted(batches: Iterable[Batch], images: int) -> Iterator[Batch]:
    """Batches of images in order, with a bar."""
    with counter(images, "images") as count:
        for batch in batches:
            yield batch
            count(int(batch.indices[-1]) + 1)


def seen_by(
    model: ImageEncoder,
    source: Source,
    *,
    bad: BadImages,
    batch_size: int,
    workers: int | None,
    indices: NDArray[np.int64] | None = None,
    crop_share: float | None = None,
    world: World | None = None,
) -> Iterator[Batch]:
    """A source's images, or those at `indices`, in order and as a model sees them: this process's part of them.

    crop_share: as `crop_share_of` understands it. world: the processes that share them; None: all are for this one.
    Raises DataError where more are unreadable than `bad` tolerates.
    """
    rank, world_size = (world.rank, world.size) if world else (0, 1)
    return eval_batches(
        source, indices=indices, image_hw=model.config.image_hw, channels=model.config.channels, bad=bad,
        crop_share=crop_share_of(model, crop_share), value_range=model.value_range,
        batch_size=batch_size, workers=workers, rank=rank, world_size=world_size,
    )  # fmt: skip


def is_image_file(word: str) -> bool:
    """Whether a word that names images names one file of them."""
    path = Path(word).expanduser()
    return is_image_name(path.name) and not path.is_dir() and not word.startswith("hf:")


def any_unreadable(source: Source) -> BadImages:
    """A note of unreadable images that tolerates any number of them, as long as one image can be read."""
    return BadImages(source, 1.0)


def skipped(bad: BadImages) -> list[dict[str, str]]:
    """Unreadable images as answers name them."""
    return [{"path": path, "reason": reason} for path, reason in bad.found()]


def require_finite(values: Tensor, weights: str) -> None:
    """Raises WeightsError where a model's output holds NaN or infinity."""
    if not bool(values.isfinite().all()):
        raise WeightsError(f"{weights}: gives values that are not finite; the weights are damaged or training diverged")
