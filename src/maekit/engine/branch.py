"""A run that goes on from another's checkpoint, in a folder of its own."""

import logging
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maekit import storage
from maekit.config import RunConfig
from maekit.engine import metrics
from maekit.engine.drift import refuse_drift
from maekit.engine.run_state import RunFolder
from maekit.engine.schedule import Plan
from maekit.errors import RunError

log = logging.getLogger("maekit")


def newest(
    folder: RunFolder | None, config: RunConfig, plan: Plan, facts: Mapping[str, Any]
) -> tuple[Path, dict[str, Any]] | None:
    """The folder's newest sound checkpoint and its facts; where there is none, the one to branch from, made its own.

    Its history comes with it; the other run's folder is only read. Raises RunError where it is no run's checkpoint, is
    of a run that is not this one's beginning, or of no earlier step than the last; StorageError where it is damaged.
    """
    own = None if folder is None else folder.newest_sound()
    if folder is None or own is not None or not config.branch:
        return own
    path = Path(config.branch)
    history = path.absolute().parent.parent / "metrics.jsonl"
    if not (path / storage.MANIFEST).is_file() or not history.is_file():
        raise RunError(f"--branch {path}: is no checkpoint of a run; name RUN/checkpoints/step-N")
    theirs = storage.read_facts(path)
    refuse_drift(theirs, facts, allowed=config.allow_drift)
    if theirs["step"] >= plan.steps:
        raise RunError(f"--branch {path}: this run would end before it, at step {plan.steps}; give more --epochs")
    for record in metrics.read(history):
        step, rate, ours = record["step"], record["lr"], plan.learning_rate(record["step"] - 1)
        if step <= theirs["step"] and not math.isclose(rate, ours):
            words = "--branch: step %d had rate %.3g, not this run's %.3g; take an earlier checkpoint or more --epochs"
            log.warning(words, step, rate, ours)
            break
    with storage.explained(folder.path):
        shutil.copy(history, folder.path)
        shutil.copytree(path, folder.checkpoints / f"step-{theirs['step']}")
    return folder.newest_sound()
