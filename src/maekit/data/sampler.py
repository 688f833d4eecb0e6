"""Which image is seen when: a stream of samples that is a function of position alone.

Position p = 0, 1, 2, ... of the stream is view p % repeats of image number p // repeats, and image number q is place
q % n in the order of epoch q // n, a permutation by the seed. Batches run across the borders of epochs, so all are
full. Step s of a global batch B takes positions s*B to (s+1)*B - 1 in passes, in each of which every rank has a
micro-batch of neighbours. So the set of samples of a step, and of a pass of as many images, changes with neither ranks
nor workers, and resuming at a step costs nothing.

With repeated sampling, the views of one image are neighbours in the stream, so that one decoding serves all of them
in a micro-batch. A batch counts views: an epoch of the schedule is then as many views as there are images.

Up to a million images an order is an array, NumPy's permutation. Of more it would be made anew at each epoch's border
while all wait, so a permutation is computed place by place: a Feistel network on the smallest power of two that holds
the images, applied again wherever it leads beyond them (cycle walking: Black and Rogaway, CT-RSA 2002).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from maekit.randomness import key, numpy_generator, split_mix

_ORDER = 0x6F72646572  # keeps these draws apart from others with the same seed and epoch
_ARRAY_UP_TO = 2**20
_ROUNDS = 4  # of each half: twice as many as Luby and Rackoff's proof asks for


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
        first, last = start // self.repeats, (stop - 1) // self.repeats
        indices = self._indices(first, last + 1)
        for position in range(start, stop):
            number, view = divmod(position, self.repeats)
            found.append(Sample(number // self.images, indices[number - first], view))
        return found

    def micro_batches(
        self, start_step: int, total_steps: int, *, batch_size: int, micro_batch: int, rank: int, world_size: int
    ) -> Iterator[list[Sample]]:
        """One rank's micro-batches of steps start_step to total_steps - 1, in order."""
        apart = world_size * micro_batch
        for start in range(start_step * batch_size, total_steps * batch_size, apart):
            yield self.samples(start + rank * micro_batch, start + (rank + 1) * micro_batch)

    def _indices(self, start: int, stop: int) -> list[int]:
        """Images number start to stop - 1 of the stream."""
        found: list[int] = []
        while start < stop:
            epoch, place = divmod(start, self.images)
            places = np.arange(place, min(self.images, place + stop - start))
            found += (self._order(places, epoch) if self.shuffle else places).tolist()
            start += len(places)
        return found

    def _order(self, places: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        return order(places, self.images, self.seed, epoch)


def order(places: NDArray[np.int64], images: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The images at these places of an epoch's order, [N] int64 each."""
    return _array(images, seed, epoch)[places] if images <= _ARRAY_UP_TO else _network(places, images, seed, epoch)


@lru_cache(maxsize=2)  # a micro-batch at an epoch's border needs two
def _array(images: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return numpy_generator(_ORDER, seed, epoch).permutation(images)


def _network(places: NDArray[np.int64], images: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """`order` without an array of its size: one-to-one, as each round can be undone and each walk ends."""
    bits = max(2, (images - 1).bit_length())
    keys = [key(_ORDER, seed, epoch, number) for number in range(2 * _ROUNDS)]
    low, above_low, above_high = map(np.uint64, (bits // 2, 64 - bits // 2, 64 - bits + bits // 2))
    found = places.astype(np.uint64)
    beyond = np.arange(len(found))
    while len(beyond):
        left, right = found[beyond] >> low, found[beyond] << above_low >> above_low
        for even, odd in zip(keys[::2], keys[1::2], strict=True):
            left ^= split_mix(even, right) >> above_high
            right ^= split_mix(odd, left) >> above_low
        found[beyond] = left << low | right
        beyond = beyond[found[beyond] >= images]
    return found.astype(np.int64)
