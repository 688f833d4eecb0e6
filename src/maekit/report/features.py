"""Features to look at: a map on which images that look alike to an encoder lie close, and each one's neighbours.

Legend: N images, D feature width.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from maekit.inference import picture
from maekit.inference.picture import Pixels

MOST = 2000  # images on a map
QUERIES = 8
_NEIGHBOURS = 6
_FEWEST = 30  # images, under which t-SNE would draw chance
_ITERATIONS = 350  # a third of scikit-learn's, after which neighbours hardly change
_THUMBNAILS = 150  # on a map
_THUMB, _DOT = 56, 5  # px on the canvas, of which a page shows about half
_CANVAS = (1400, 1000)
_COLOURED = 10  # classes
_LETTERS = 24

Places = NDArray[np.float64]
"""[N, 2] in [0, 1]."""


def principal(vectors: NDArray[np.float32]) -> tuple[Places, float]:
    """(places by the first two principal components, the share of the variance that is in them)."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    left, strengths, _ = np.linalg.svd(centred, full_matrices=False)
    places = np.zeros((len(vectors), 2))
    kept = min(2, len(strengths))
    places[:, :kept] = left[:, :kept] * strengths[:kept]
    total = float((strengths**2).sum())
    return _in_unit(places), float((strengths[:2] ** 2).sum()) / total if total else 1.0


def neighbourhood(vectors: NDArray[np.float32]) -> Places | None:
    """Places by t-SNE, cosine distances (scikit-learn, the same each time); None for few images."""
    if len(vectors) < _FEWEST:
        return None
    from sklearn.manifold import TSNE  # a second that small runs do not spend

    perplexity = min(30.0, (len(vectors) - 1) / 3)
    unit = _unit(vectors)
    return _in_unit(TSNE(perplexity=perplexity, init="pca", random_state=0, max_iter=_ITERATIONS).fit_transform(unit))


def spread_out(places: Places) -> list[int]:
    """Images whose thumbnails do not lie on each other, as many as a map shows."""
    size = np.array([_THUMB / (_CANVAS[0] - _THUMB), _THUMB / (_CANVAS[1] - _THUMB)])
    taken: list[int] = []
    for index in range(len(places)):
        apart = np.abs(places[taken] - places[index]) >= size
        if apart.any(axis=1).all():
            taken.append(index)
        if len(taken) == _THUMBNAILS:
            break
    return taken


def drawn(places: Places, labels: Sequence[int], classes: Sequence[str], thumbs: Mapping[int, Pixels]) -> Image.Image:
    """A map: a thumbnail where there is one, else a dot; of up to ten classes each has a colour."""
    colours = _colours(labels, classes)
    canvas = Image.new("RGB", _CANVAS, "white")
    draw = ImageDraw.Draw(canvas)
    room = np.array(_CANVAS) - _THUMB
    middles = places * room + _THUMB / 2
    for index, (x, y) in enumerate(middles):
        if index not in thumbs:
            draw.ellipse((x - _DOT, y - _DOT, x + _DOT, y + _DOT), fill=colours[index])
    for index, pixels in thumbs.items():
        x, y = (middles[index] - _THUMB / 2).round().astype(int).tolist()
        small = picture.panel(pixels, _THUMB)
        small.thumbnail((_THUMB - 6, _THUMB - 6), Image.Resampling.LANCZOS)
        draw.rectangle((x, y, x + small.width + 5, y + small.height + 5), fill=colours[index])
        canvas.paste(small, (x + 3, y + 3))
    return _with_legend(canvas, classes)


def nearest(vectors: NDArray[np.float32]) -> dict[int, list[int]]:
    """Of eight images, evenly spread, those most alike by cosine, the nearest first; without themselves."""
    unit = _unit(vectors)
    queries = np.unique(np.linspace(0, len(unit) - 1, QUERIES).round().astype(int))
    found = {}
    for query in queries.tolist():
        order = np.argsort(-(unit @ unit[query]), kind="stable")
        found[query] = order[order != query][:_NEIGHBOURS].tolist()
    return found


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _in_unit(places: NDArray[Any]) -> Places:
    low, high = places.min(axis=0), places.max(axis=0)
    return np.asarray((places - low) / np.where(high > low, high - low, 1), np.float64)


def _colours(labels: Sequence[int], classes: Sequence[str]) -> list[str]:
    if not classes or len(classes) > _COLOURED:
        return ["#0072b2"] * len(labels)
    palette = [mpl.colors.to_hex(colour) for colour in mpl.colormaps["tab10"].colors]  # type: ignore[attr-defined]
    return ["#999999" if label < 0 else palette[label] for label in labels]


def _with_legend(canvas: Image.Image, classes: Sequence[str]) -> Image.Image:
    if not classes or len(classes) > _COLOURED:
        return canvas
    font = ImageFont.load_default(_LETTERS)
    shown = [name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…" for name in classes]
    colours = _colours(range(len(classes)), classes)
    whole = Image.new("RGB", (canvas.width, canvas.height + 2 * _LETTERS * -(-len(classes) // 5)), "white")
    whole.paste(canvas, (0, 0))
    draw = ImageDraw.Draw(whole)
    for number, (name, colour) in enumerate(zip(shown, colours, strict=True)):
        x, y = number % 5 * canvas.width // 5 + _THUMB // 2, canvas.height + (number // 5 * 2 + 1) * _LETTERS
        draw.rectangle((x, y - 10, x + 20, y + 10), fill=colour)
        draw.text((x + 30, y), name, fill="#1a1a1a", font=font, anchor="lm")
    return whole
