"""A resumed run must be the run that was interrupted."""

import logging
from collections.abc import Mapping
from typing import Any

from maekit.config.files import by_path
from maekit.errors import RunError

log = logging.getLogger("maekit")

# What may differ: it changes where and how a run is executed, not what is learned.
_FREE = {
    "name", "weights", "data.source", "data.workers", "data.bad_share", "data.cache_limit", "run.out", "run.resume",
    "run.overwrite", "run.allow_drift", "run.device", "run.checkpoint_every", "run.keep", "run.log_every",
    "run.tensorboard", "run.profile", "run.hang_timeout", "run.parallel", "run.reshard_after_forward",
    "run.async_checkpoint", "run.compile", "run.parts", "run.checkpoint_activations", "schedule.micro_batch_limit",
    "schedule.recipe_batch_size", "schedule.recipe_images",
}  # fmt: skip
_BRANCH = "run.branch"
_FREE_IN_BRANCHES = {"schedule.epochs", "schedule.steps", "schedule.course", "schedule.cooldown", "schedule.min_lr",
                     "schedule.milestones", "schedule.gamma"}  # fmt: skip
_SHOWN = 8


def identity(config: Mapping[str, Any], fingerprint: str) -> dict[str, Any]:
    """What makes a run this run: its options by dotted path, without those that are free, and its data."""
    said = by_path(config)
    options = {path: value for path, value in said.items() if path not in _FREE and not path.startswith("validation.")}
    return {**options, "data": fingerprint}


def refuse_drift(then: Mapping[str, Any], now: Mapping[str, Any], *, allowed: bool) -> None:
    """Raises RunError, listing the differences, where `identity` has changed; warns instead where that is allowed.

    Of a checkpoint that a run branches from, length and course of the rate may be others.
    """
    old, new = then.get("identity", {}), now.get("identity", {})
    branches = new.get(_BRANCH) and new[_BRANCH] != old.get(_BRANCH)
    free = {_BRANCH} | (_FREE_IN_BRANCHES if branches and not new.get("schedule.resolutions") else set())
    changed = [name for name in sorted({*old, *new} - free) if old.get(name) != new.get(name)]
    if not changed:
        return
    words = ", ".join(_difference(name, old.get(name), new.get(name)) for name in changed[:_SHOWN])
    if len(changed) > _SHOWN:
        words += f" and {len(changed) - _SHOWN} more"
    other = "optimizer.name" in changed  # which knows nothing of the moments
    if other or not allowed:
        way = "begin anew from its weights by --weights" if other else "--allow-drift"
        was = "it branches from" if branches else "was interrupted"
        raise RunError(f"this is not the run that {was}: {words}; give the same again, or {way}")
    log.warning("going on in spite of differences: %s", words)


def _difference(name: str, old: Any, new: Any) -> str:
    if name == "data":
        return "the images (their number, names, labels or sizes changed)"
    return f"{name} was {old}, is {new}"
