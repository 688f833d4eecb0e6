"""What lies below a folder, in one walk: images, packed files, and all that is neither."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from maekit.data.sources.passed_over import BESIDE_NAMES, PassedOver, is_beside, suffix
from maekit.data.sources.run_folders import is_run_folder
from maekit.data.sources.source import is_image_name
from maekit.errors import DataError

Parts = tuple[str, ...]
"""A path relative to the folder, as its parts."""

PACKED = (".parquet", ".tar")
"""Suffixes of files that hold images packed."""
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Files that say what the images beside them are, as the hub's ImageFolder has them; the first of a folder is read."""

_LITTER = {
    "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "__macosx", "__pycache__", "lost+found",
    "lost.dir", "$recycle.bin", "recycler", "system volume information", "network trash folder", "temporary items",
}  # fmt: skip
"""Folders that systems, not people, make, in lower case: thumbnails, waste baskets, snapshots."""
_SYSTEM_FILES = ("thumbs.db", "desktop.ini", "ehthumbs.db")
_OUR_INDEX = (".maekit-index.npz", ".maekit-index.json")  # written beside tar shards, now and by earlier versions


@dataclass
class Contents:
    """What a walk found."""

    root: Path
    images: list[Parts] = field(default_factory=list)
    """In order of their paths."""
    packed: list[Parts] = field(default_factory=list)
    """Parquet and tar files, in order of their paths."""
    metadata: list[Path] = field(default_factory=list)
    others: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Files that are neither, by the top folder they are in ("" for none) and what they are."""
    beside: Counter[str] = field(default_factory=Counter)
    """Hidden files, folders that systems or runs made."""
    tops: dict[str, bool] = field(default_factory=dict)
    """The folders at the top that can be classes, and whether there is nothing at all in them."""
    notes: list[str] = field(default_factory=list)

    def passed_over(self) -> PassedOver:
        """All but images and packed files."""
        meant, beside = Counter[str](), self.beside.copy()
        for (_, what), count in self.others.items():
            (beside if is_beside(what) else meant)[what] += count
        return PassedOver(meant, beside, tuple(self.notes))

    def meant_in(self, top: str) -> Counter[str]:
        """What may have been meant as images in a folder at the top."""
        counts = {what: count for (where, what), count in self.others.items() if where == top and not is_beside(what)}
        return Counter(counts)

    def metadata_above(self, inside: Parts) -> list[Path]:
        """Metadata files that lie in the folders on the way to one further down."""
        above = {self.root.joinpath(*inside[:depth]) for depth in range(len(inside))}
        return [file for file in self.metadata if file.parent in above]


def survey(root: Path) -> Contents:
    """Walk a folder. Links are followed, one back to a folder already seen ends there; hidden files and folders,
    folders that systems make (`@eaDir`) and maekit's run folders are counted, not entered.

    Raises DataError where a folder cannot be listed.
    """
    found = Contents(root)
    seen: set[tuple[int, int]] = set()
    for where, folders, files in os.walk(root, onerror=_refuse, followlinks=True):
        folder = Path(where)
        above = folder.relative_to(root).parts
        if above and is_run_folder(folder, folders, files):
            found.beside["run folder"] += 1
            folders.clear()
            continue
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            above_it = folder.parent.resolve()
            if folder.resolve() not in (above_it, *above_it.parents):  # else a link leads back to a folder it is in
                found.notes.append(f"{'/'.join(above)} is left out, as a link leads to the same folder, read already")
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        if len(above) == 1:
            found.tops[above[0]] = not folders and not files
        folders[:] = sorted(name for name in folders if _is_entered(found, name))
        _sort_files(found, above, files)
    found.images.sort()
    found.packed.sort()
    _place_metadata(found)
    return found


def _is_entered(found: Contents, name: str) -> bool:
    if name.lower() in _LITTER:
        found.beside[f"{name} folder"] += 1
    elif name.startswith("."):
        found.beside["hidden folder"] += 1
    else:
        return True
    return False


def _sort_files(found: Contents, above: Parts, files: list[str]) -> None:
    top = above[0] if above else ""
    for name in files:
        small = name.lower()
        if name.startswith("."):
            found.beside["hidden file"] += 1
        elif is_image_name(name):
            found.images.append((*above, name))
        elif small in METADATA:
            found.metadata.append(found.root.joinpath(*above, name))
        elif small.endswith(PACKED):
            found.packed.append((*above, name))
        elif small in _SYSTEM_FILES:
            found.beside[name] += 1
        elif not small.endswith(_OUR_INDEX):
            found.others[top, name if small in BESIDE_NAMES else suffix(name)] += 1


def _place_metadata(found: Contents) -> None:
    """A metadata file says something of images; without any it is what its suffix says."""
    if found.images:
        return
    for file in found.metadata:
        parts = file.relative_to(found.root).parts
        if file.suffix.lower() in PACKED:
            found.packed = sorted([*found.packed, parts])
        else:
            found.others[parts[0] if len(parts) > 1 else "", file.suffix.lower()] += 1
    found.metadata = []


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be listed ({error.strerror})")
