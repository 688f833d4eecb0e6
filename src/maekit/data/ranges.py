"""Which stored values become black and white, and how much of their range a source's values use."""

import logging
from collections.abc import Iterable
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from maekit.data.arrays import Range
from maekit.data.decode import stored_values
from maekit.data.sources import Source
from maekit.data.sources.elsewhere import some_of
from maekit.data.workers import map_in_order, worker_count
from maekit.errors import DataError, ImageError, UsageError
from maekit.randomness import numpy_generator

log = logging.getLogger("maekit")

Choice = Literal["measured"] | Range | None
"""What `--data.range` can say."""

MEASURED_IMAGES = 1_000
"""Images whose values are measured at most, evenly spread over the source."""
LITTLE = 0.5  # of their range: images that use less are dark, or pale
_LOOKED_AT = 16  # images
NARROW = 1 / 8  # of the range that a type has
PERCENTILES = (0.1, 99.9)
_VALUES = 10_000  # of an image that are looked at, drawn by the image's number
_DRAW = 0x72616E67  # keeps these draws apart from others


def known_range(choice: Choice) -> Range | None:
    """The numbers of a choice that is resolved. Raises UsageError where it still has to be measured."""
    if choice == "measured":
        raise UsageError("data.range: measured, but nothing was measured; give the two numbers")
    return choice


def resolved(choice: Choice, source: Source, channels: int, *, workers: int | None = None) -> Range | None:
    """The numbers that a choice stands for; measured ones are logged.

    Raises DataError where no image can be read, where images of 8 bits and of more are mixed, which no range fits
    both, or where all values are equal.
    """
    if choice != "measured":
        return choice
    indices = some_of(source, MEASURED_IMAGES).tolist()
    found = map_in_order(partial(_some_values, source, channels), indices, worker_count(workers))
    sampled = [values for values in found if values is not None]
    if not sampled:
        raise DataError(f"{source.text}: no image can be read, so there is no range to measure")
    if len({values.dtype == np.uint8 for values in sampled}) > 1:
        raise DataError(
            f"{source.text}: holds images of 8 bits and of more, which no range fits both; separate them (maekit data "
            "shows how they are kept)"
        )
    low, high = (float(value) for value in np.percentile(np.concatenate(sampled).astype(np.float64), PERCENTILES))
    if not low < high:
        raise DataError(f"{source.text}: nearly all values are {low:g}, so there is no range to measure")
    log.info(
        "range: %g to %g become black to white, the %gst and %gth percentile of %s values in %s images",
        low, high, *PERCENTILES, f"{sum(map(len, sampled)):,}", f"{len(sampled):,}",
    )  # fmt: skip
    return low, high


def say_little_use(source: Source, channels: int, advice: str) -> None:
    """Warn where the values of some images, evenly spread, use less than half of what their type can hold."""
    found = []
    for index in some_of(source, _LOOKED_AT).tolist():
        try:
            kept = stored_values(source.read(index), channels)
        except ImageError:
            continue
        if kept.values.dtype != np.uint8 and kept.values.size:
            found.append((float(kept.values.min()), float(kept.values.max()), float(kept.full)))
    for use in use_of_range(found):
        if use["share"] < LITTLE:
            ways = advice.format(low=f"{use['low']:g}", high=f"{use['high']:g}")
            log.warning(
                "%s: stored values from %g to %g use %.0f%% of what their type can hold, and images look alike; %s",
                source.text, use["low"], use["high"], 100 * use["share"], ways,
            )  # fmt: skip


def use_of_range(found: Iterable[tuple[float, float, float]]) -> list[dict[str, Any]]:
    """How much of their range values use, by kind of number: [{kept, low, high, share, images, narrow}].

    found: of each image its least and its largest stored value, and what its type stands for white. narrow: images that
    use less than an eighth of it, as 13 bits in 16 do.
    """
    kinds: dict[float, tuple[float, float, int, int]] = {}
    for least, largest, full in found:
        low, high, images, narrow = kinds.get(full, (least, largest, 0, 0))
        is_narrow = largest - least < full * NARROW
        kinds[full] = min(low, least), max(high, largest), images + 1, narrow + is_narrow
    return [
        {"kept": "floating point" if full == 1 else f"0 to {full:.0f}", "low": low, "high": high,
         "share": (high - low) / full, "images": images, "narrow": narrow}
        for full, (low, high, images, narrow) in sorted(kinds.items())
    ]  # fmt: skip


def _some_values(source: Source, channels: int, index: int) -> NDArray[np.generic] | None:
    """Some of an image's stored values; None where it cannot be read."""
    try:
        values = stored_values(source.read(index), channels).values.reshape(-1)
    except ImageError:
        return None
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    if len(values) > _VALUES:
        values = values[numpy_generator(_DRAW, index).integers(len(values), size=_VALUES)]
    return values if len(values) else None
