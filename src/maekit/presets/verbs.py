"""What every verb can be told, by the verb's name."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from maekit import presets
from maekit.config import ClassifyConfig, PlanConfig, PretrainConfig, ProbeOptions, together, verbs
from maekit.config.help import help_of
from maekit.config.keywords import Common
from maekit.config.options import Option, by_name, options_of


def _planned(preset: Callable[[], PretrainConfig]) -> Callable[[], PlanConfig]:
    @wraps(preset)
    def plan() -> PlanConfig:
        return PlanConfig.of(preset())

    return plan


VERBS: dict[str, tuple[Any, dict[str, Any] | None]] = {
    "demo": (verbs.DemoOptions, None),
    "data": (verbs.DataOptions, None),
    "suggest": (verbs.SuggestOptions, None),
    "pack": (verbs.PackOptions, None),
    "plan": (PlanConfig, {name: _planned(preset) for name, preset in presets.PRETRAIN.items()}),
    "pretrain": (PretrainConfig, presets.PRETRAIN),
    "probe": (ProbeOptions, None),
    "finetune": (ClassifyConfig, presets.FINETUNE),
    "scratch": (ClassifyConfig, presets.SCRATCH),
    "watch": (verbs.WatchOptions, None),
    "compare": (verbs.CompareOptions, None),
    "card": (verbs.CardOptions, None),
    "evaluate": (verbs.EvaluateOptions, None),
    "classify": (verbs.ClassifyOptions, None),
    "reconstruct": (verbs.ReconstructOptions, None),
    "embed": (verbs.EmbedOptions, None),
    "app": (verbs.AppOptions, None),
    "inspect": (verbs.InspectOptions, None),
    "convert": (verbs.ConvertOptions, None),
}
"""The class of each one's options, and of a training the presets."""
ALSO = {
    "finetune": {"--image-size": "--classifier.image-size"},  # scratch has it in its model
    "probe": {"--probe": "--kinds"},
}
"""Further names of options, by which they are spoken of, and the name they stand for."""


def options_by_verb() -> dict[str, list[Option]]:
    """Those that serve in each verb, whose presets all offer the same."""
    found = {}
    for verb, (kind, table) in VERBS.items():
        preset = next(iter(table.values()))() if table else None
        found[verb] = together.offered(options_of(kind, preset), preset or kind)
    return found


def documented_common(verb: str) -> str:
    """The options of a training that have a short name, likewise."""
    options = by_name(options_by_verb()[verb])
    named = ((name, options.get("--" + name.replace("_", "-"))) for name in Common.__annotations__)
    lines = (f"        {name}: {help_of(option)}" for name, option in named if option is not None)
    return "\n".join(["    Options:", *lines, ""])


def documented(kind: type[Any]) -> str:
    """The options of a class, as part of the docstring of the function that takes them."""
    lines = (f"        {option.path}: {help_of(option)}" for option in options_of(kind))
    return "\n".join(["    Options:", *lines, ""])
