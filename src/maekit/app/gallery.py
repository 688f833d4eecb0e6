"""The images of --gallery: to be taken, and to be found near a picture.

Legend: M images of the gallery, D feature width.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maekit.app.decoding import View
from maekit.app.exhibit import Exhibit
from maekit.config.verbs import AppOptions
from maekit.data.sources import Source, Space, open_source
from maekit.data.sources.elsewhere import some_of
from maekit.inference.one_pass import any_unreadable, counted, printable, seen_by

_NEAREST = 8


class _Known(NamedTuple):
    """vectors: [M, D] of unit length; indices: of the source, [M]."""

    vectors: Tensor
    indices: Tensor


class Gallery:
    """Images of a source with their features by each exhibit. Raises DataError where none can be read."""

    def __init__(self, options: AppOptions, exhibits: Sequence[Exhibit]) -> None:
        self._source: Source = open_source(options.gallery, options.image_column, Space.within(options.cache_limit))
        self._chosen = some_of(self._source, options.gallery_images)
        self._known = {exhibit.name: self._features(exhibit, options) for exhibit in exhibits}
        self.numbers: list[int] = next(iter(self._known.values())).indices.tolist()

    def _features(self, exhibit: Exhibit, options: AppOptions) -> _Known:
        few = options.workers is None and len(self._chosen) <= options.batch_size
        batches = seen_by(
            exhibit.model, self._source, bad=any_unreadable(self._source), batch_size=options.batch_size,
            workers=0 if few else options.workers, indices=self._chosen, crop_share=options.crop_share,
        )  # fmt: skip
        parts = [(exhibit.pooled(batch.images), batch.indices) for batch in counted(batches, len(self._chosen))]
        return _Known(*map(torch.cat, zip(*parts, strict=True)))

    def image(self, number: int, view: View) -> Tensor:
        """An image [C, H, W] of the gallery by its number in the source, as a model sees it; KeyError without one."""
        if number not in self.numbers:
            raise KeyError(number)
        return view.of(self._source.read(number))

    def name(self, number: int) -> str:
        """What the source calls it, without its folders."""
        return printable(self._source.path(number)).rpartition("/")[2]

    def nearest(self, exhibit: Exhibit, vector: Tensor) -> list[dict[str, Any]]:
        """{image, name, similarity} of the images that are most like a vector [D] of unit length, the nearest first."""
        known = self._known[exhibit.name]
        values, places = (known.vectors @ vector).topk(min(_NEAREST, len(known.indices)))
        found = zip(known.indices[places].tolist(), values.tolist(), strict=True)
        return [{"image": f"gallery:{number}", "name": self.name(number), "similarity": v} for number, v in found]
