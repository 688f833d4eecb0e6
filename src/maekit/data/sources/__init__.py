"""Where images come from: one string, recognised by what it is, and one file per kind of source."""

import re
from collections.abc import Callable
from difflib import get_close_matches
from itertools import product
from pathlib import Path

from maekit.data.sources.digits import DigitsSource
from maekit.data.sources.folder import FolderSource
from maekit.data.sources.hub import HubSource
from maekit.data.sources.list_file import open_images, open_list
from maekit.data.sources.parquet import ParquetSource
from maekit.data.sources.shards import ShardsSource
from maekit.data.sources.source import IMAGE_SUFFIXES, Source, is_image_name
from maekit.errors import DataError

__all__ = ["Source", "open_images", "open_source"]

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST_SHARDS = 1_000_000
_OF_FILES: dict[str, Callable[[str, list[Path]], Source]] = {".parquet": ParquetSource, ".tar": ShardsSource}


def open_source(text: str) -> Source:
    """The source that a string names.

    A folder of images; a list file; .parquet or .tar files: one, a folder of them, a pattern (`train-*.parquet`) or a
    range (`shard-{000..099}.tar`); `hf:REPO@split`; `digits:train`, `digits:test`, `digits:`. Raises DataError, one
    line, where there is nothing, or nothing that is understood, or no image in it.
    """
    try:
        source = _recognise(text)
    except OSError as error:
        raise DataError(f"{text}: cannot be opened ({error.strerror})") from None
    if not len(source):
        raise DataError(f"{text}: holds no image")
    return source


def _recognise(text: str) -> Source:
    if text.startswith("digits:"):
        return DigitsSource(text, text.partition(":")[2])
    if text.startswith("hf:"):
        return HubSource(text)
    if not text:
        raise DataError(
            "no source is named; give a folder of images, a list file, .parquet, tar shards, hf:REPO@split or digits:"
        )
    path = Path(text).expanduser()
    if path.is_dir():
        return _folder(text, path)
    if path.exists():
        return _file(text, path)
    files = _several(path)
    if files and path.suffix in _OF_FILES:
        return _OF_FILES[path.suffix](text, files)
    raise DataError(_not_there(text, path))


def _folder(text: str, path: Path) -> Source:
    images = FolderSource(text, path)
    if len(images):
        return images
    for suffix, kind in _OF_FILES.items():
        files = sorted(file for file in path.rglob(f"*{suffix}") if not file.name.startswith("."))
        if files:
            return kind(text, files)
    raise DataError(f"{text}: holds no image; looked at any depth for {' '.join((*IMAGE_SUFFIXES, *_OF_FILES))}")


def _file(text: str, path: Path) -> Source:
    if path.suffix in _OF_FILES:
        return _OF_FILES[path.suffix](text, [path])
    if is_image_name(path.name):
        raise DataError(
            f"{text}: is one image; a source is a folder, a list file, .parquet, tar shards or hf:REPO@split"
        )
    return open_list(text, path)


def _several(path: Path) -> list[Path]:
    """Files that a path with braces or wildcards stands for."""
    if "{" in path.name:
        return [path.with_name(name) for name in _expand(path.name)]
    return sorted(path.parent.glob(path.name)) if set("*?[") & set(path.name) else []


def _expand(name: str) -> list[str]:
    """The names that `a-{000..099}.tar` or `a-{x,y}.tar` stands for. Raises DataError for braces it cannot read."""
    pieces = _BRACES.split(name)  # every second one stood in braces
    choices = [[piece] if place % 2 == 0 else _choices(piece, name) for place, piece in enumerate(pieces)]
    return ["".join(parts) for parts in product(*choices)]


def _choices(inside: str, name: str) -> list[str]:
    numbers = _RANGE.fullmatch(inside)
    if not numbers:
        return inside.split(",")
    first, last = int(numbers[1]), int(numbers[2])
    if not 0 <= last - first < _MOST_SHARDS:
        raise DataError(f"{name}: {{{inside}}} does not count upwards from the first shard to the last")
    return [str(number).zfill(len(numbers[1])) for number in range(first, last + 1)]


def _not_there(text: str, path: Path) -> str:
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = get_close_matches(path.name, siblings, n=1)
    return f"{text}: no such file or folder" + (f"; did you mean {path.parent / close[0]}?" if close else "")
