"""Which image is seen when: a stream of samples that is a function of position alone.

Position p = 0, 1, 2, ... of the stream is view p % repeats of image number p // repeats, and image number q is
`order(seed, epoch)[q % n]` of epoch q // n. Batches run across the borders of epochs, so all are full. Step s of a
global batch B takes positions s*B to (s+1)*B - 1; each rank has a contiguous share of them, cut into micro-batches. So
the set of samples of a step changes with neither ranks nor workers, and resuming at a step costs nothing.

With repeated sampling, the views of one image are neighbours in the stream, so that one decoding serves all of them
in a micro-batch. A batch counts views: an epoch of the schedule is then as many views as there are images.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from maekit.randomness import numpy_generator

_ORDER = 0x6F72646572  # keeps these draws apart from others with the same seed and epoch


@dataclass(frozen=True)
class Sample:
    """One view of an image in one epoch: the key of everything random about it."""

    epoch: int
    index: int
    view: int


@dataclass(frozen=True)
class SampleStream:
    """The endless stream of samples over `images` images."""

    images: int
    seed: int
    shuffle: bool = True
    repeats: int = 1

    def samples(self, start: int, stop: int) -> list[Sample]:
        """Samples at positions start to stop - 1."""
        found = []
        for position in range(start, stop):
            number, view = divmod(position, self.repeats)
            epoch, place = divmod(number, self.images)
            index = int(_order(self.images, self.seed, epoch)[place]) if self.shuffle else place
            found.append(Sample(epoch, index, view))
        return found

    def micro_batches(
        self, start_step: int, total_steps: int, *, batch_size: int, micro_batch: int, rank: int, world_size: int
    ) -> Iterator[list[Sample]]:
        """One rank's micro-batches of steps start_step to total_steps - 1, in order."""
        share = batch_size // world_size
        for step in range(start_step, total_steps):
            first = step * batch_size + rank * share
            for start in range(first, first + share, micro_batch):
                yield self.samples(start, min(start + micro_batch, first + share))


@lru_cache(maxsize=2)  # a micro-batch at an epoch's border needs two
def _order(images: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return numpy_generator(_ORDER, seed, epoch).permutation(images)
