"""A list file: a line per image, `path, label` or `path`."""

import re
from collections.abc import Sequence
from pathlib import Path

from maekit.data.sources.labels import as_label, integer_labels
from maekit.data.sources.source import Names, file_size, fingerprint, read_file
from maekit.errors import DataError

_LABELLED = re.compile(r"(.*),\s*([+-]?\d{1,18})")
_LOOKED_AT = 1 << 16  # bytes in which a file that is not text shows it, so that a huge one is not read
_PACKED = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_HEADER = re.compile(r"path\s*,\s*label", re.IGNORECASE)


class ListSource:
    """Images by path, relative ones counting from `folder`; whether a file is there shows when it is read.

    Labels are numbers from 0, -1 for none, and the classes are named by them.
    """

    def __init__(self, text: str, folder: Path, names: Sequence[str], labels: Sequence[int]) -> None:
        self.text = text
        self._folder = folder
        self._names = Names(names)
        self._labels, self.classes = integer_labels(text, labels)

    def __len__(self) -> int:
        return len(self._names)

    def path(self, index: int) -> str:
        return str(self._folder / self._names[index])

    def label(self, index: int) -> int | None:
        return as_label(self._labels[index])

    def read(self, index: int) -> bytes:
        return read_file(self._folder / self._names[index])

    def fingerprint(self) -> str:
        sizes = (file_size(self._folder / name) for name in self._names)
        return fingerprint(self.classes, self._names, self._labels, sizes)


def open_list(text: str, file: Path) -> ListSource:
    """The images that a list file names, in its order.

    The label is what follows the last comma, where that is an integer; else the whole line is the path, so spaces and
    commas in paths survive. Blank lines and a first line `path,label` are passed over. Raises DataError where the file
    cannot be read as text.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(_LOOKED_AT)
            if b"\0" not in content:
                content += opened.read()
    except OSError as error:
        raise DataError(f"{text}: cannot be read ({error.strerror})") from None
    if b"\0" in content:
        packed = "; unpack it, or pack its images as .tar" if file.suffix in _PACKED else ""
        raise DataError(f"{text}: neither a list file, as it is not text, nor any other source that is known{packed}")
    lines = [line.strip() for line in content.decode("utf-8-sig", "surrogateescape").split("\n")]
    if _HEADER.fullmatch(lines[0]):
        del lines[0]
    names: list[str] = []
    labels: list[int] = []
    for line in filter(None, lines):
        labelled = _LABELLED.fullmatch(line)
        names.append(labelled[1].rstrip() if labelled else line)
        labels.append(int(labelled[2]) if labelled else -1)
    return ListSource(text, file.parent, names, labels)


def open_images(paths: Sequence[Path]) -> ListSource:
    """Unlabelled image files, named one by one."""
    return ListSource(", ".join(map(str, paths)), Path(), [str(path) for path in paths], [-1] * len(paths))
