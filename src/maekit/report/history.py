"""What a run folder tells of its run: its config, its history, and how it did before its first step."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maekit.engine import metrics
from maekit.engine.metrics import Record
from maekit.engine.run_state import UNTRAINED
from maekit.errors import RunError

Points = tuple[list[float], list[float]]
"""Steps, and a value at each."""


@dataclass(frozen=True)
class History:
    """ran: config.json. records: metrics.jsonl. untrained: {images, val_loss, ...} of the model before its first step,
    judged by so many images; empty where nobody has judged it."""

    folder: Path
    ran: Mapping[str, Any]
    records: Sequence[Record]
    untrained: Record

    @classmethod
    def of(cls, folder: Path) -> "History":
        """Raises RunError for a folder that holds no run, or a damaged config."""
        return cls(folder, _config(folder / "config.json"), metrics.read(folder / "metrics.jsonl"), _judged(folder))

    def option(self, path: str) -> Any:
        """A value of the config by its dotted path; None where there is none."""
        return _at(self.ran["config"], path)

    def said(self, name: str) -> Mapping[str, Any]:
        """What config.json holds beside the options: data, hardware, versions; empty where there is nothing."""
        found = self.ran.get(name)
        return found if isinstance(found, dict) else {}

    def computed(self, name: str) -> Any:
        """What followed from the config: steps, lr, gflop and the like; None where the run has not written it."""
        return _at(self.ran, f"computed.{name}")

    def points(self, key: str) -> Points:
        """(steps, values) of the records that hold a number under this key."""
        held = [record for record in self.records if "step" in record and isinstance(record.get(key), int | float)]
        return [record["step"] for record in held], [record[key] for record in held]

    def last(self, key: str) -> float | None:
        """The newest number under this key."""
        values = self.points(key)[1]
        return values[-1] if values else None

    @property
    def steps(self) -> int:
        """How many are done, as far as it is logged."""
        return int(self.last("step") or 0)

    @property
    def seconds(self) -> float:
        """Of all logged steps together, by their rates; validation and saving are not in it. 0 where none tell."""
        steps, rates = self.points("images_per_second")
        batch_size = self.option("schedule.batch_size")
        if not isinstance(batch_size, int) or 0 in rates:
            return 0.0
        lengths = (step - before for step, before in zip(steps, [0, *steps], strict=False))
        return sum(length * batch_size / rate for length, rate in zip(lengths, rates, strict=True))

    @property
    def measures(self) -> list[str]:
        """Names of what validation measures."""
        return list(dict.fromkeys(key for record in self.records for key in record if key.startswith("val_")))


def _at(values: Any, path: str) -> Any:
    for name in path.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values


def _judged(folder: Path) -> Record:
    try:
        found = json.loads((folder / UNTRAINED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _config(path: Path) -> dict[str, Any]:
    try:
        ran = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}); name the folder of a run that has begun") from None
    except ValueError as error:
        raise RunError(f"{path}: is damaged ({error}); a report needs the config that ran") from None
    if not isinstance(ran, dict) or not isinstance(ran.get("config"), dict):
        raise RunError(f"{path}: holds no 'config'; a report needs the config that ran")
    return ran
