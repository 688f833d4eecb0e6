"""What the loop asks of whatever it trains, and what it gives back."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from maekit.engine.metrics import Record


class Task(Protocol):
    """What is trained, and what makes it better; a task that derives from it says what differs."""

    model: nn.Module
    """The module whose weights are trained and saved."""
    averaged: str = ""
    """What the names of those parameters begin with of which a running average is kept; empty: of all."""

    def prepare(self, batch: Any) -> Any:
        """What `loss` takes: a batch on the model's device with all that is drawn for it. Never compiled."""

    def loss(self, prepared: Any) -> dict[str, Tensor]:
        """Scalars by name; `loss`, the mean over the batch, is minimised, the others are logged."""

    def evaluate(self) -> dict[str, float]:
        """What held-out images say of the model as it is; names begin with val_. Called on every rank."""

    def evaluate_average(self) -> dict[str, float]:
        """The same while averaged weights stand in the model."""
        return self.evaluate()

    def rate_factors(self) -> dict[str, float]:
        """Factors on the learning rate by parameter name (layer-wise decay); empty: none."""
        return {}

    def metadata(self) -> dict[str, str]:
        """What stands in the header of the weights' file, enough to build the model anew."""
        return {}

    def average_metadata(self) -> dict[str, str]:
        """The same of the average's file."""
        return self.metadata()


Batches = Callable[[int], Iterator[Any]]
"""From a step to the micro-batches of this rank, from that step on, in order."""


@dataclass(frozen=True)
class Outcome:
    """step: where the run ended. record: its last logged line. weights, averaged: the state dict, and that of the
    running average if one is kept; whole, and empty on all processes but the first. early: why it ended before the end
    of the plan; empty where it did not."""

    step: int
    record: Record
    weights: dict[str, Tensor]
    averaged: dict[str, Tensor] | None
    early: str = ""
