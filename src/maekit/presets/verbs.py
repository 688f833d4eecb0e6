"""The options of every verb, to tell where one belongs that was typed elsewhere."""

from typing import Any

from maekit import presets
from maekit.config import ClassifyConfig, PretrainConfig, ProbeOptions, together, verbs
from maekit.config.options import Option, options_of

_FLAT: dict[str, Any] = {
    "demo": verbs.DemoOptions,
    "data": verbs.DataOptions,
    "suggest": verbs.SuggestOptions,
    "probe": ProbeOptions,
    "evaluate": verbs.EvaluateOptions,
    "classify": verbs.ClassifyOptions,
    "reconstruct": verbs.ReconstructOptions,
    "embed": verbs.EmbedOptions,
    "inspect": verbs.InspectOptions,
    "convert": verbs.ConvertOptions,
}
_NESTED: dict[str, Any] = {
    "pretrain": (PretrainConfig, presets.PRETRAIN),
    "finetune": (ClassifyConfig, presets.FINETUNE),
    "scratch": (ClassifyConfig, presets.SCRATCH),
}


def options_by_verb() -> dict[str, list[Option]]:
    """Those that serve in each verb, whose presets all offer the same."""
    found = {verb: together.offered(options_of(kind, flat=True), kind) for verb, kind in _FLAT.items()}
    for verb, (kind, table) in _NESTED.items():
        preset = next(iter(table.values()))()
        found[verb] = together.offered(options_of(kind, preset), preset)
    return found
