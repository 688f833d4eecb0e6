"""How a function takes a preset and what departs from it, runs that training, and says what came of it."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from maekit import presets, results
from maekit.calling import command_of, to_terminal
from maekit.config import beforehand
from maekit.config.keywords import configured
from maekit.errors import Stopped, UsageError
from maekit.presets.verbs import VERBS
from maekit.sections import Picture, Text

LEARNED_FROM = "labelled images to train on"
JUDGED_BY = "labelled images to judge by; or hold some out: --val-split 0.1"


def config_of(verb: str, preset: Any, common: Mapping[str, Any], options: Mapping[str, Any] | None) -> Any:
    """A verb's config: the preset's, with what is given in its place."""
    kind, table = VERBS[verb]
    if not isinstance(preset, kind | str | os.PathLike):
        raise UsageError(f"{verb}: takes a preset's name, a path or a {kind.__name__}, not {type(preset).__name__}")
    config: Any = preset if isinstance(preset, kind) else presets.find(table or {}, kind, os.fspath(preset))
    if given := {**common, **(options or {})}:
        config = configured(kind, given, command_of(verb, config.name), config)
    return config


def train(verb: str, preset: Any, common: Mapping[str, Any], options: Mapping[str, Any] | None) -> results.Run:
    """A training by the preset, which is checked as far as it can be beforehand."""
    config = config_of(verb, preset, common, options)
    if verb == "finetune":
        need(config.weights, "--weights", "the pretrained encoder")
    need(config.data.source, "--data", "the images to pretrain on" if verb == "pretrain" else LEARNED_FROM)
    need(verb == "pretrain" or config.validation.source or config.validation.split, "--val", JUDGED_BY)
    beforehand.check_training(config, int(os.environ.get("WORLD_SIZE", "1")))

    from maekit.recipes import classify, pretrain

    runs: dict[str, Callable[[Any], dict[str, Any]]] = {
        "pretrain": pretrain.run, "finetune": classify.finetune, "scratch": classify.scratch,
    }  # fmt: skip
    return _answered(runs[verb], config)


def need(value: str | float | None, option: str, meaning: str) -> None:
    """Raises UsageError where an option that is indispensable is not given."""
    if not value:
        raise UsageError(f"{option} is missing: {meaning}")


def _answered(run: Callable[[Any], dict[str, Any]], config: Any) -> results.Run:
    with to_terminal():
        try:
            answer = run(config)
        except Stopped as stop:
            if stop.signal != "SIGINT":
                raise
            from maekit.engine import metrics

            record = metrics.last(Path(stop.run) / "metrics.jsonl") if stop.run else {}
            stopped = {**record, "run": stop.run or None, "steps": stop.step, "stopped": stop.signal}
            again = f"; the same call with out={stop.run!r}, resume=True goes on" if stop.run else ""
            return results.Run.of(stopped, sections=[Text(f"{stop}{again}")])
    values = [
        f"{name} {'not finite' if value is None else f'{value:.4g}'}"
        for name, value in answer.items()
        if name == "loss" or name.startswith("val_")
    ]
    if answer["run"] is None:  # other ranks say nothing
        return results.Run.of(answer)
    early = f"  {answer['ended_early']}" if answer["ended_early"] else ""
    said = Text(f"done: {answer['run']}  {'  '.join(values)}  see {answer['run']}/report.html{early}")
    from PIL import Image

    pictures = sorted(Path(answer["run"]).glob("pictures/*.png"))
    return results.Run.of(answer, sections=[said, *(Picture(Image.open(p).copy(), p.stem) for p in pictures)])
