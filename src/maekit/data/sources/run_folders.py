"""Our own run folders, which are written where people work, so among their images too."""

import json
from collections.abc import Collection
from pathlib import Path

_FILES = {
    "config.json", "metrics.jsonl", "model.safetensors", "model_ema.safetensors", "best.safetensors", "report.html",
    "log.txt", "not_finite.json", "untrained.json", "probes.jsonl", "lock",
}  # fmt: skip
_FOLDERS = {"tensorboard", "checkpoints", "pictures"}
_LOOKED_AT = 1 << 20  # bytes of a file that tell whose it is


def is_run_folder(folder: Path, folders: Collection[str], files: Collection[str]) -> bool:
    """Whether a run is, or was, at work in a folder that holds these folders and files.

    Its names alone do not tell, as others have a config.json too. So one of three things is looked into: the lock of a
    process that is at work, which is the first thing in a new run folder; config.json with what a run writes down; a
    history whose lines count steps, with another part of a run beside it.
    """
    ours = (_FILES & set(files)) | (_FOLDERS & set(folders))
    if "lock" in ours and _begins(folder / "lock").startswith("process "):
        return True
    if "config.json" in ours and _keys(_begins(folder / "config.json")) >= {"config", "computed", "versions"}:
        return True
    if "metrics.jsonl" in ours and len(ours) > 1:
        first = _begins(folder / "metrics.jsonl").partition("\n")[0]
        return _keys(first) >= {"step", "epoch"}
    return "checkpoints" in ours and len(ours) > 1 and any((folder / "checkpoints").glob("step-*/manifest.json"))


def _keys(text: str) -> set[str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return set()
    return set(value) if isinstance(value, dict) else set()


def _begins(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(_LOOKED_AT).decode("utf-8", "replace")
    except OSError:
        return ""
