"""What a pretraining shows of itself: held-out images painted at some moments, a map of its features, neighbours.

None of it may cost the run: what fails is left out, and said.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maekit import masking, storage
from maekit.config.verbs import DataOptions
from maekit.data.loader import BadImages, Batch
from maekit.data.sources import Source
from maekit.data.sources.elsewhere import some_of
from maekit.engine.run_state import UNTRAINED
from maekit.errors import DataError
from maekit.inference import doctor, picture, reconstruct
from maekit.inference.features import Features
from maekit.inference.one_pass import printable, seen_by
from maekit.inference.picture import Pixels
from maekit.models.encoder import ImageEncoder
from maekit.models.mae import MaskedAutoencoder
from maekit.randomness import keys_tensor
from maekit.report import features, moments
from maekit.sections import Facts, Heading, Picture, Section, Text

log = logging.getLogger("maekit")

_EXAMINED = 200  # images that the data doctor looks at


@contextmanager
def left_out(what: str) -> Iterator[None]:
    """Whatever fails inside is said, and stops nothing."""
    try:
        yield
    except Exception as error:
        log.warning("the report lacks %s: %s: %s", what, type(error).__name__, " ".join(str(error).split()))


@dataclass(frozen=True)
class Shown:
    """The images that a report is about. bad: what is known of them."""

    source: Source
    bad: BadImages

    def masked(self, model: MaskedAutoencoder, count: int, seed: int) -> tuple[Tensor, Tensor] | None:
        """So many, evenly spread, whole as the model sees them, and their masks; None where none can be read."""
        batch = next(self.batches(model, some_of(self.source, count), count, 1.0), None)
        if batch is None:
            return None
        images = batch.to(model.device).images
        return images, masking.draw_on(model.device, model.objective.mask, keys_tensor(seed, batch.indices))[0]

    def batches(
        self, model: ImageEncoder, indices: NDArray[np.int64], size: int, crop_share: float | None = None
    ) -> Iterator[Batch]:
        """Those at `indices`, in this process."""
        return seen_by(
            model, self.source, bad=self.bad, batch_size=size, workers=0, indices=indices, crop_share=crop_share
        )


class Moments:
    """The same few images, under the same masks, as a model paints them while it is trained."""

    def __init__(self, about: Shown, seed: int) -> None:
        self._about, self._seed = about, seed
        self._shown: tuple[Tensor, Tensor] | None = None
        self._fails = False

    def paint(self, model: MaskedAutoencoder, run: Path, step: int) -> None:
        """Write what the model paints now. Nothing where it cannot, which the last picture says."""
        if self._fails:
            return
        try:
            self._shown = self._shown or self._about.masked(model, moments.SHOWN, self._seed)
            if self._shown is None:
                raise DataError("none of the images can be read")
            rows = reconstruct.rows(model, *self._shown)
            strips = {moments.at_step(step): [row.reconstruction for row in rows]}
            if not (run / "pictures" / "moments" / f"{moments.LAST}.jpg").exists():
                strips |= {moments.FIRST: [row.masked for row in rows], moments.LAST: [row.original for row in rows]}
            moments.write(run, strips)
        except Exception:
            self._fails = True


def write_untrained(run: Path, said: Mapping[str, float], images: int) -> None:
    """Keep what validation by so many images says of the model before its first step."""
    with left_out("what the model was before training"):
        storage.write_text(run / UNTRAINED, json.dumps({"images": images, **said}) + "\n")


def feature_sections(model: ImageEncoder, about: Shown, found: Features) -> list[Section]:
    """Maps of images by their features, with PCA and t-SNE, and the neighbours of eight of them."""
    vectors, labels = found.vectors.float().numpy(), found.labels.tolist()
    if len(vectors) < 2:
        return []
    classes = [printable(name) for name in about.source.classes or ()]
    by_variance, share = features.principal(vectors)
    maps = {
        f"By the first two principal components, which hold {share:.0%} of the variance.": by_variance,
        "By t-SNE of the cosine distances (scikit-learn): close means alike; far apart says nothing more.":
            features.neighbourhood(vectors),
    }  # fmt: skip
    near = features.nearest(vectors)
    shown = {caption: features.spread_out(places) for caption, places in maps.items() if places is not None}
    wanted = {*near, *(index for row in near.values() for index in row), *(i for some in shown.values() for i in some)}
    pixels = _pixels(model, about, found.indices.numpy(), sorted(wanted))
    said: list[Section] = [
        Heading("What looks alike to the encoder"),
        Text(f"{len(vectors):,} images of {about.source.text}."),
    ]
    for caption, few in shown.items():
        places = maps[caption]
        assert places is not None
        thumbs = {index: pixels[index] for index in few if index in pixels}
        said.append(Picture(features.drawn(places, labels, classes, thumbs), caption))
    rows = [[pixels[i] for i in (query, *row)] for query, row in near.items() if pixels.keys() >= {query, *row}]
    if rows:
        headings = ("image", *("nearest" if number == 0 else "" for number in range(len(rows[0]) - 1)))
        said.append(
            Picture(picture.grid(rows, headings=headings), "Images, and those most alike among these, by cosine.")
        )
    return said


def _pixels(model: ImageEncoder, about: Shown, numbers: NDArray[np.int64], wanted: list[int]) -> dict[int, Pixels]:
    """Images [H, W, C] uint8 as the model sees them, by their row among `numbers`."""
    row_of = {int(numbers[row]): row for row in wanted}
    batches = about.batches(model, numbers[wanted], 64)
    found = {}
    for batch in batches:
        for number, image in zip(batch.indices.tolist(), batch.images, strict=True):
            values = image if image.dtype == torch.uint8 else (image.float().clamp(0, 1) * 255).round().byte()
            found[row_of[number]] = values.permute(1, 2, 0).numpy()
    return found


def data_sections(source: Source, text: str, channels: int) -> list[Section]:
    """What the data doctor finds in some images of a source."""
    options = DataOptions(source=text, channels=channels, images=_EXAMINED, workers=0)
    found = doctor.examine(options, source)
    heading = f"The training images, by {found.examined:,} of them"
    said = [part for part in found.sections if isinstance(part, Facts | Text)]
    return [Heading(heading), *said]
