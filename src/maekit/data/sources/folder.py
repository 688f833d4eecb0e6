"""A folder of class folders, or of unlabelled images at any depth."""

import logging
import os
from pathlib import Path

import numpy as np

from maekit.data.sources.labels import as_label
from maekit.data.sources.source import Names, file_size, fingerprint, is_image_name, read_file
from maekit.errors import DataError

_log = logging.getLogger("maekit")


class FolderSource:
    """The images below a folder, ordered by path.

    Where every image lies in some subfolder, and there are at least two of those, the top-level folders are the
    classes, sorted by name, with images at any depth below each. Images directly in the folder, or a single subfolder
    for all, make it unlabelled. Hidden files and folders, and files without an image's suffix, are passed over; links
    are followed.
    """

    def __init__(self, text: str, root: Path) -> None:
        self.text = text
        self._root = root
        found = sorted(_images_below(root))
        tops = sorted({parts[0] for parts in found if len(parts) > 1})
        labelled = len(tops) > 1 and all(len(parts) > 1 for parts in found)
        self.classes = tuple(tops) if labelled else None
        if len(tops) > 1 and not labelled:
            beside = next(parts[0] for parts in found if len(parts) == 1)
            _log.warning("%s: images are unlabelled, as %s lies beside the %d subfolders", text, beside, len(tops))
        number = {name: label for label, name in enumerate(tops)}
        self._labels = np.array([number[parts[0]] if labelled else -1 for parts in found], dtype=np.int64)
        self._names = Names("/".join(parts) for parts in found)

    def __len__(self) -> int:
        return len(self._names)

    def path(self, index: int) -> str:
        return str(self._root / self._names[index])

    def label(self, index: int) -> int | None:
        return as_label(self._labels[index])

    def read(self, index: int) -> bytes:
        return read_file(self._root / self._names[index])

    def fingerprint(self) -> str:
        sizes = (file_size(self._root / name) for name in self._names)
        return fingerprint(self.classes, self._names, self._labels, sizes)


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be listed ({error.strerror})")


def _images_below(root: Path) -> list[tuple[str, ...]]:
    """Paths relative to the root, as parts. A link back to a folder already seen ends there."""
    found: list[tuple[str, ...]] = []
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, onerror=_refuse, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        above = Path(folder).relative_to(root).parts
        found += [(*above, name) for name in files if is_image_name(name)]
    return found
