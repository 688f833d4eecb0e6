"""Presets: functions that return a complete config, found by name."""

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from maekit.config import ClassifyConfig, PretrainConfig, files
from maekit.errors import UsageError
from maekit.presets import finetune, hierarchical, pretrain, scratch

PRETRAIN: dict[str, Callable[[], PretrainConfig]] = {**pretrain.PRESETS, **hierarchical.PRESETS}
FINETUNE: dict[str, Callable[[], ClassifyConfig]] = {**finetune.PRESETS}
SCRATCH: dict[str, Callable[[], ClassifyConfig]] = {**scratch.PRESETS}

T = TypeVar("T")


def find(presets: dict[str, Callable[[], T]], kind: type[T], name: str) -> T:
    """The preset of this name, or the config saved at this path.

    Raises UsageError naming the nearest preset.
    """
    if name in presets:
        return presets[name]()
    path = Path(name)
    if path.is_dir() and not (path / "config.json").exists():
        raise UsageError(
            f"{name}: is a folder without config.json, so no run; the preset comes first: PRESET --data {name}; "
            f"there are {', '.join(presets)}"
        )
    if path.suffix in (".json", ".yaml", ".yml") or path.is_dir():
        return files.read(kind, path)
    close = get_close_matches(name, list(presets), n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UsageError(f"no preset {name!r}: {hint}there are {', '.join(presets)}, or give the path of a saved config")


def summary(preset: Callable[[], Any]) -> str:
    """The first line of a preset's docstring."""
    return (preset.__doc__ or "").strip().splitlines()[0]
