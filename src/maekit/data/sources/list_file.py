"""A list file: a line per image, `path, label` or `path`."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from maekit.data.sources.folder import FilesSource
from maekit.data.sources.labels import found_labels
from maekit.data.sources.list_lines import NUMBER, RULE, Line, read_lines
from maekit.data.sources.passed_over import PassedOver
from maekit.data.sources.source import home_path
from maekit.data.sources.splits import Splits, chosen
from maekit.errors import DataError

_LOOKED_AT = 1 << 16  # bytes in which a file that is not text shows it, so that a huge one is not read
_PACKED = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_UNREAD = (
    ".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".psd", ".svg", ".jxl", ".mov", ".mp4",
)  # fmt: skip
_SAMPLED = 20  # first paths of which one has to be there
_ADDRESS = re.compile(r"\w{2,}://")

log = logging.getLogger("maekit")


class ListSource(FilesSource):
    """Images by path, relative ones counting from `folder`; whether a file is there shows when it is read.

    Labels are numbers from 0, -1 for none, and the classes are named by them; or words, which become classes in sorted
    order.
    """

    def __init__(
        self,
        text: str,
        folder: Path,
        names: Sequence[str],
        labels: Sequence[int] | Sequence[str | None],
        passed_over: PassedOver | None = None,
    ) -> None:
        kept, classes = found_labels(text, [None if label == -1 else label for label in labels])
        super().__init__(text, folder, names, kept, classes, passed_over or PassedOver())


def open_list(text: str, file: Path, split: str | None = None) -> ListSource:
    """The images that a list file names, in its order, by the rule of `list_lines`.

    split: take the lines alone whose column `split` says so. Raises DataError where the file cannot be read as text,
    where a line breaks the rule, where none of the first paths is there, or where a column `split` tells several apart
    and none is chosen.
    """
    lines, header = read_lines(text, _content(text, file))
    lines = _of_split(text, lines, split)
    names = _paths(text, file.parent, lines)
    further = max((line.further for line in lines), default=0)
    left_out = ", ".join(header.left_out) if header else f"{further} after the label" if further else ""
    notes = (f"columns of {text} that are left out: {left_out}",) if left_out else ()
    return ListSource(text, file.parent, names, _labels(text, lines), PassedOver(notes=notes))


def open_images(paths: Sequence[Path]) -> ListSource:
    """Unlabelled image files, named one by one."""
    return ListSource(", ".join(map(str, paths)), Path(), [str(path) for path in paths], [-1] * len(paths))


def _content(text: str, file: Path) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(_LOOKED_AT)
            if b"\0" not in content:
                content += opened.read()
    except OSError as error:
        raise DataError(f"{text}: cannot be read ({error.strerror})") from None
    if b"\0" in content:
        packed = "; unpack it, or pack its images as .tar" if file.suffix in _PACKED else ""
        if file.suffix.lower() in _UNREAD:
            packed = f"; maekit reads no {file.suffix.lower()}: convert it to .jpg or .png first"
        raise DataError(f"{text}: neither a list file, as it is not text, nor any other source that is known{packed}")
    return content.decode("utf-8-sig", "surrogateescape")


def _of_split(text: str, lines: list[Line], split: str | None) -> list[Line]:
    places: dict[str, list[int]] = {}
    for place, line in enumerate(lines):
        if line.split:
            places.setdefault(line.split.lower(), []).append(place)
    splits = Splits(dict(sorted(places.items())), None) if places else None
    if split is not None:
        return [lines[place] for place in chosen(text, splits, split)]
    if len(places) > 1:
        choices = " or ".join(f"{text}@{name}" for name in sorted(places))
        raise DataError(
            f"{text}: its column `split` tells {', '.join(sorted(places))} apart; take one of them: {choices}"
        )
    return lines


def _paths(text: str, folder: Path, lines: list[Line]) -> list[str]:
    """The paths as they are opened; DataError where none of the first is there."""
    names = [_home(folder, line.path) for line in lines]
    sample = list(dict.fromkeys(names[:_SAMPLED]))
    slashed = {name: name.replace("\\", "/") for name in sample if "\\" in name}
    if any(not (folder / name).exists() and (folder / other).exists() for name, other in slashed.items()):
        log.warning("%s: its backslashes are taken for slashes", text)
        names = [name.replace("\\", "/") for name in names]
        sample = list(dict.fromkeys(names[:_SAMPLED]))
    if sample and not any((folder / name).exists() for name in sample):
        line = lines[0]
        what = "is an address; maekit reads files, so download them first"
        if not _ADDRESS.match(line.path):
            what = f"is not there (looked for {folder / names[0]}), nor is any of the next"
        raise DataError(f"{text}: line {line.number}: {line.path!r} {what}; {RULE}")
    return names


def _home(folder: Path, path: str) -> str:
    return path if not path.startswith("~") or (folder / path).exists() else str(home_path(path))


def _labels(text: str, lines: list[Line]) -> list[int] | list[str | None]:
    """Numbers where all labels are numbers, words where none is one; DataError at the line that mixes them."""
    labelled = [line for line in lines if line.label]
    if not labelled:
        return [-1] * len(lines)
    in_numbers = NUMBER.fullmatch(labelled[0].label) is not None
    for line in labelled:
        if (NUMBER.fullmatch(line.label) is not None) != in_numbers:
            kinds = ("a number", "a word") if in_numbers else ("a word", "a number")
            raise DataError(
                f"{text}: line {line.number}: label {line.label!r} is {kinds[1]}, where {labelled[0].label!r} in line "
                f"{labelled[0].number} is {kinds[0]}; labels are whole numbers from 0, or class names, one or the other"
            )
    if not in_numbers:
        return [line.label or None for line in lines]
    numbers = [int(found[1]) if (found := NUMBER.fullmatch(line.label)) else -1 for line in lines]
    if min((number for number in numbers if number >= 0), default=0) == 1:
        log.warning("%s: labels begin at 1, so that class 0 has no image; maekit counts classes from 0", text)
    return numbers
