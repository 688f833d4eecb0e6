"""A training that ends because it no longer gets better, as validation sees it."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measure:
    """What validation measures: its key in the history, its name for a person, and of which values more is better."""

    key: str
    name: str
    goodness: Callable[[float], float]


MEASURES = {
    "rankme": Measure("val_rankme", "RankMe", lambda value: value),
    "alpha": Measure("val_alpha", "alpha-ReQ", lambda value: -abs(value - 1)),
    "lidar": Measure("val_lidar", "LiDAR", lambda value: value),
    "loss": Measure("val_loss", "the held-out loss", lambda value: -value),
    "knn": Measure("val_knn", "kNN", lambda value: value),
}
"""By the name that `ValidationConfig.stop_by` has for it."""


@dataclass(frozen=True)
class Patience:
    """How long a run goes on without getting better. since: the step from which on it counts, another run's end."""

    measure: Measure
    validations: int
    since: int = 0

    @classmethod
    def of(cls, validations: int | None, by: str, branch: str = "") -> "Patience | None":
        """What these options ask for; None where they ask for none. branch: the checkpoint a run goes on from."""
        begun = re.search(r"step-(\d+)/*$", branch)
        return None if validations is None else cls(MEASURES[by], validations, int(begun[1]) if begun else 0)

    def spent(self, records: Iterable[Mapping[str, Any]], until: int) -> str:
        """Why a run with these records ends at step `until`; empty where it goes on."""
        best, at, behind, last = -math.inf, 0, 0, 0
        for record in records:
            step, value = record.get("step", 0), record.get(self.measure.key)
            if not self.since < step <= until or not isinstance(value, int | float):
                continue
            last, good = step, self.measure.goodness(value)
            if good > best:
                best, at, behind, shown = good, step, 0, value
            else:
                behind += 1
        if behind < self.validations or last != until:
            return ""
        return f"{self.measure.name} was at its best at step {at:,}, {shown:.4g}, and not in {behind} validations since"
