"""Features of many images, batch by batch.

Legend: N images, T tokens, D feature width.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maekit.data.loader import Batch
from maekit.models.encoder import ImageEncoder
from maekit.models.family import Features as Kind


class Features(NamedTuple):
    """vectors: [N, D] (patches: [N, T, D]) float32, labels: [N] int64 (-1: none), indices: [N] int64; on the CPU."""

    vectors: Tensor
    labels: Tensor
    indices: Tensor

    def labelled(self) -> "Features":
        """Those of the images that have a label."""
        known = self.labels >= 0
        return Features(*(column[known] for column in self))


def stream(
    model: ImageEncoder, batches: Iterable[Batch], kind: Kind = "pooled", *, blocks: int = 1
) -> Iterator[Features]:
    """Features of each batch as it comes, so that no more than one is held."""
    for batch in batches:
        yield Features(model.features(batch.images, kind, blocks=blocks).cpu(), batch.labels, batch.indices)


def extract(model: ImageEncoder, batches: Iterable[Batch], kind: Kind = "pooled", *, blocks: int = 1) -> Features:
    """Features of all images that come, in order. The model is left as it is."""
    return joined(list(stream(model, batches, kind, blocks=blocks)))


def joined(parts: Sequence[Features]) -> Features:
    """Features one after the other; of no part at all, no rows, whose width nobody can know."""
    if not parts:
        return Features(torch.empty(0), torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
    return Features(*map(torch.cat, zip(*parts, strict=True)))
