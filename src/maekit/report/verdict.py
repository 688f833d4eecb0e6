"""What a history says, in words. Each sentence follows from numbers in it, which it names; what they cannot tell is
not said."""

import math
from collections.abc import Iterator
from statistics import fmean

import numpy as np

from maekit.config.data import LABEL_FREE
from maekit.engine.evaluate import collapse
from maekit.engine.patience import MEASURES, Patience
from maekit.engine.timing import LONG_WAIT
from maekit.report.history import History

_ACCURACIES = ("val_knn", "val_top1")
_LABEL_FREE = MEASURES[LABEL_FREE].key
NAMES = {
    "val_knn": "kNN", "val_top1": "top-1", "val_loss": "validation loss", "loss": "training loss",
    "val_rankme": "RankMe", "val_lidar": "LiDAR", "val_alpha": "alpha-ReQ's distance from 1",
}  # fmt: skip
_RISING = (*_ACCURACIES, "val_rankme", "val_lidar")
_FEWEST = 4  # validations in the second half, to fit a line to
_MOST = 50  # values a line is fitted to: more are averaged, as neighbours' noise is shared
_SURE = 3  # standard errors of a line, whose values lean on those before
_CHANCE = 2  # standard errors of a share of images
_WORSE = 1.02  # times the lowest validation loss


def verdict(history: History) -> list[str]:
    """Sentences on: whether it still improves, what training has brought, what is wrong."""
    return [*_ended(history), *_course(history), *_brought(history), *_trouble(history)]


def _ended(history: History) -> Iterator[str]:
    """That it is not at the end of its plan, or why it is done before."""
    planned = history.computed("steps")
    if not planned or not 0 < history.steps < planned:
        return
    asked, by = history.option("validation.stop_after"), history.option("validation.stop_by")
    patience = Patience.of(asked, by, history.option("run.branch") or "")
    early = patience.spent(history.records, history.steps) if patience else ""
    if early:
        yield f"Ended at step {history.steps:,} of {planned:,}: {early}."
    else:
        yield f"At step {history.steps:,} of {planned:,}, so what follows is not the last word."


def _course(history: History) -> Iterator[str]:
    """By what labels tell whether it still improves; where there are none, by the loss and what needs none."""
    there = [key for key in (*_ACCURACIES, _LABEL_FREE, "val_loss", "loss") if history.points(key)[0]]
    by_labels = [key for key in there if key in _ACCURACIES]
    without = [*there[:1], *(key for key in there[1:2] if key == "val_loss")]
    for measure in by_labels[:1] or without:
        yield from _improvement(history, measure)


def _improvement(history: History, measure: str) -> Iterator[str]:
    """Whether the last quarter brought something, by a line through the second half."""
    name, rises = NAMES[measure], measure in _RISING
    steps, values = history.points(measure)
    slope = _slope(steps, [abs(value - 1) for value in values] if measure == "val_alpha" else values)
    if slope is None:
        yield f"Too few values of {name} to tell whether it still improves."
        return
    gain, error = (value * history.steps / 4 for value in slope)
    moved = f"{abs(gain):.2g} {name}"
    doubt = f"± {_SURE * error:.1g}, by a line through its second half"
    if abs(gain) <= _SURE * error:
        yield f"Level: the last quarter of the steps changed {name} by {gain:+.2g} ({doubt})."
    elif (gain > 0) == rises:
        verb = "gained" if rises else "took off"
        yield f"Still improving: the last quarter of the steps {verb} {moved} ({doubt})."
    else:
        verb = "lost" if rises else "added"
        yield f"Getting worse: the last quarter of the steps {verb} {moved} ({doubt})."


def _slope(steps: list[float], values: list[float]) -> tuple[float, float] | None:
    """A line's rise a step over the second half of the steps, and its standard error; None of too few values."""
    x, y = np.asarray(steps, float), np.asarray(values, float)
    if not len(x):
        return None
    late = (x >= x[-1] / 2) & np.isfinite(y)
    x, y = x[late], y[late]
    if len(x) > _MOST:
        parts = np.array_split(np.arange(len(x)), _MOST)
        x, y = (np.array([column[part].mean() for part in parts]) for column in (x, y))
    if len(x) < _FEWEST:
        return None
    centred = x - x.mean()
    spread = float((centred**2).sum())
    slope = float(centred @ y) / spread
    rest = y - y.mean() - slope * centred
    return slope, math.sqrt(float((rest**2).sum()) / (len(x) - 2) / spread)


def _brought(history: History) -> Iterator[str]:
    """What training has brought over the model it began with, where that was judged by the same images."""
    before, images = history.untrained.get("val_knn"), history.untrained.get("images")
    steps, values = history.points("val_knn")
    if not values or not isinstance(before, float) or not isinstance(images, int) or not images:
        return
    now, best = values[-1], max(values)
    error = _CHANCE * math.sqrt(max(now * (1 - now), before * (1 - before)) / images)
    began = "the weights it began with" if history.option("weights") else "its untrained self"
    chance = f"(chance alone moves that by {error:.2g} on {images:,} images)"
    if now - before <= error:
        word = "Worse than" if before - now > error else "No better than"
        yield f"{word} {began}: kNN {now:.3g}, before the first step {before:.3g} {chance}."
    else:
        yield f"Better than {began}: kNN {now:.3g}, before the first step {before:.3g} {chance}."
    if best - now > error:
        yield f"It was better at step {steps[values.index(best)]:,.0f}: kNN {best:.3g}."


def _trouble(history: History) -> Iterator[str]:
    rank, images = history.last("val_rankme"), history.untrained.get("images")
    if rank is not None and isinstance(images, int) and (said := collapse(rank, images)):
        yield said[0].upper() + said[1:] + "."
    steps, losses = history.points("val_loss")
    if losses and losses[-1] > _WORSE * min(losses) and history.steps > 4 / 3 * steps[losses.index(min(losses))]:
        lowest = steps[losses.index(min(losses))]
        yield f"The validation loss was lowest at step {lowest:,.0f}, {min(losses):.3g}, and is {losses[-1]:.3g} now."
    waiting = history.points("waiting")[1]
    if waiting and fmean(waiting) > LONG_WAIT:
        yield f"It waited for images {fmean(waiting):.0%} of the time: more --workers, or `maekit pack` once."
