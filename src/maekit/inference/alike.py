"""What can be told of an image at a glance: whether it is nearly another, dark, blurred, or one colour.

Legend: N images.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn import functional as F

from maekit.data.sources import Source
from maekit.data.sources.passed_over import printable

_ROWS, _COLUMNS = 16, 16  # of differences between neighbours, a bit each
_COMPARED_SIDE = 32  # px
_STEP = 0.01  # of white, under which a difference is none: what compression changes stays the same
_SHARE = 0.15  # of the bits that are set in both, which may differ at most: what is plain has few
_NEAR = 20  # of 256 bits that may differ
_PLAIN = 16  # bits set, under which there is too little in an image to tell it by
MOST = 20_000  # images among which near ones are looked for, each with each
_CHUNK = 1000
_DARK = 0.05  # mean, of white
_CONSTANT = 0.004  # standard deviation, of white: a byte's step
_SHARP_SIDE = 64  # px of the shorter side, from which on blur is judged
_JUDGED = 128  # px to which it is judged
_BLURRED = 0.002  # variance of the Laplacian by that of the image


@dataclass(frozen=True)
class Look:
    """bits: of 256, packed: in which of 16 x 16 places it grows lighter from left to right (dHash, which scaling and
    compression leave nearly as it is); none in images under 32 px, whose few pixels tell too little. light, spread:
    mean and standard deviation, of white. sharp: variance of the Laplacian by that of the image, None of small ones."""

    bits: NDArray[np.uint8]
    light: float
    spread: float
    sharp: float | None

    @property
    def constant(self) -> bool:
        """One colour."""
        return self.spread < _CONSTANT

    @property
    def dark(self) -> bool:
        return self.light < _DARK and not self.constant

    @property
    def blurred(self) -> bool:
        return self.sharp is not None and self.sharp < _BLURRED and not self.constant


def look(image: Tensor) -> Look:
    """image: [C, H, W], uint8 or float in [0, 1]; of more than three channels, the first three."""
    grey = image[:3].float().mean(dim=0, keepdim=True)[None] / (1 if image.is_floating_point() else 255)
    bits = np.zeros(_ROWS * _COLUMNS // 8, np.uint8)
    if min(image.shape[1:]) >= _COMPARED_SIDE:
        whole = Image.fromarray(grey[0, 0].numpy())
        small = np.asarray(whole.resize((_COLUMNS + 1, _ROWS), Image.Resampling.BOX))
        bits = np.packbits(np.diff(small) > _STEP)
    sharp = None
    if min(image.shape[1:]) >= _SHARP_SIDE:
        judged = F.adaptive_avg_pool2d(grey, (min(image.shape[1], _JUDGED), min(image.shape[2], _JUDGED)))
        kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
        sharp = float(F.conv2d(judged, kernel).var() / judged.var().clamp_min(1e-12))
    return Look(bits, float(grey.mean()), float(grey.std(correction=0)), sharp)


def near(looks: Sequence[Look]) -> list[list[int]]:
    """Groups of images that are nearly the same, by their numbers; of more than 20,000, among the first so many.

    Images in a group need not all be near each other: each is near one of it. What is plain is in none.
    """
    bits = np.array([np.unpackbits(one.bits) for one in looks[:MOST]], np.float32)
    kept = np.flatnonzero(bits.sum(axis=1) >= _PLAIN) if len(bits) else np.empty(0, np.int64)
    counts = bits[kept].sum(axis=1) if len(kept) else np.empty(0, np.float32)
    signs = 2 * bits[kept] - 1 if len(kept) else np.empty((0, 1), np.float32)
    rows, columns = [], []
    for start in range(0, len(kept), _CHUNK):
        differ = (signs.shape[1] - signs[start : start + _CHUNK] @ signs.T) / 2
        allowed = np.minimum(_NEAR, _SHARE * (counts[start : start + _CHUNK, None] + counts))
        left, right = np.nonzero(differ <= allowed)
        later = left + start < right
        rows.append(left[later] + start)
        columns.append(right[later])
    if not rows:
        return []
    left, right = np.concatenate(rows), np.concatenate(columns)
    linked = coo_array((np.ones(len(left)), (left, right)), shape=(len(kept), len(kept)))
    _, group = connected_components(linked, directed=False)
    together = [kept[group == number].tolist() for number in np.unique(group[left])]
    return sorted(together)


Place = tuple[bool, int]
"""Whether an image is a held-out one, and its number in its source."""


class Entry(NamedTuple):
    """An image that can be read: where it is, the digest of its bytes, how it looks."""

    place: Place
    digest: bytes
    look: Look


class Alike(NamedTuple):
    """Groups of images of equal bytes, and of nearly the same looks; those groups in which held-out images are together
    with others; images that are dark, blurred, or one colour; all that can be read."""

    duplicates: list[list[Place]]
    near: list[list[Place]]
    shared: list[list[Place]]
    dark: list[Place]
    blurred: list[Place]
    constant: list[Place]
    sound: list[Place]


def alike(entries: Sequence[Entry]) -> Alike:
    """What of some images deserves a look."""
    by_bytes: dict[bytes, list[Entry]] = {}
    for entry in entries:
        by_bytes.setdefault(entry.digest, []).append(entry)
    same = [[entry.place for entry in group] for group in by_bytes.values() if len(group) > 1]
    first = [group[0] for group in by_bytes.values()]  # what has equal bytes is near by itself
    close = [[first[number].place for number in group] for group in near([entry.look for entry in first])]
    shared = [group for group in (*same, *close) if len({held_out for held_out, _ in group}) > 1]
    dark, blurred, constant = (
        [entry.place for entry in entries if getattr(entry.look, name)] for name in ("dark", "blurred", "constant")
    )
    return Alike(same, close, shared, dark, blurred, constant, [entry.place for entry in entries])


class Seen(NamedTuple):
    """What was found, and where: the examined source, and the held-out one if any."""

    sources: tuple[Source, Source | None]
    found: Alike

    def path(self, place: Place) -> str:
        """An image's, fit to be printed."""
        return printable(self.source(place).path(place[1]))

    def source(self, place: Place) -> Source:
        """An image's."""
        source = self.sources[place[0]]
        assert source is not None
        return source

    def as_dict(self) -> Mapping[str, Any]:
        """The paths, by the names they have in an answer."""
        found = self.found
        groups = {"near_duplicates": found.near} | ({"shared": found.shared} if self.sources[1] is not None else {})
        single = {"dark": found.dark, "blurred": found.blurred, "constant": found.constant}
        said: dict[str, Any] = {name: [[*map(self.path, group)] for group in groups[name]] for name in groups}
        return said | {name: [*map(self.path, places)] for name, places in single.items()}

    def lines(self) -> Iterator[tuple[str, list[str]]]:
        """The same for a terminal: a title, and lines under it."""
        said = self.as_dict()
        yield "Nearly the same", [" ~ ".join(group) for group in said["near_duplicates"]]
        yield "Held out, and among the others too", [" = ".join(group) for group in said.get("shared", ())]
        for name in ("dark", "blurred"):
            yield f"Very {name}", said[name]
        yield "Of one colour", said["constant"]
