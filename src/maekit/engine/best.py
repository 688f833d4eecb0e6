"""The best weights of a run, by what validation says of them."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from maekit import storage
from maekit.engine import metrics, sharding
from maekit.engine.distributed import World
from maekit.engine.run_state import RunFolder


class Best:
    """Keeps best.safetensors: the weights whose validation beats all before it, of the run it goes on from too."""

    def __init__(self, folder: RunFolder | None, measure: str | None, world: World) -> None:
        """folder: None on all ranks but the first. measure: whose highest value is best; None: nothing is kept."""
        self._folder, self._measure, self._world = folder, measure, world
        self._highest: float | None = None

    def keep(self, said: Mapping[str, Any], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Write these weights where what a validation said of them is the best yet. Called on every rank."""
        name = self._measure
        if name is None:
            return
        if self._highest is None:
            before = [] if self._folder is None else metrics.read(self._folder.path / "metrics.jsonl")
            self._highest = self._world.tell(max((r[name] for r in before if r.get(name) is not None), default=-1.0))
        if said[name] > self._highest:
            self._highest = said[name]
            whole = sharding.gathered(dict(tensors), self._world)
            if self._folder is not None:
                storage.write_tensors(self._folder.path / "best.safetensors", whole, dict(metadata))
