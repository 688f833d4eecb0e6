"""What a source left out, so that nothing is passed over without a word."""

import logging
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maekit.data.sources.source import Source

_SUFFIX = re.compile(r"(?<=.)\.(?=[0-9]*[a-z])[a-z0-9]{1,8}$", re.IGNORECASE | re.ASCII)
_BESIDE = {
    ".txt", ".md", ".rst", ".pdf", ".doc", ".docx", ".odt", ".rtf", ".html", ".htm", ".log", ".bib", ".tex", ".css",
    ".js", ".csv", ".tsv", ".xls", ".xlsx", ".ods", ".json", ".jsonl", ".ndjson", ".xml", ".yaml", ".yml", ".toml",
    ".ini", ".cfg", ".conf", ".names", ".data", ".cache", ".lst", ".idx", ".rec", ".pkl", ".pickle", ".db", ".sqlite",
    ".parquet", ".arrow", ".feather", ".tar", ".py", ".ipynb", ".sh", ".bat", ".m", ".r", ".c", ".cpp", ".h", ".java",
    ".pt", ".pth", ".ckpt", ".onnx", ".bin", ".pb", ".tflite", ".h5", ".safetensors", ".md5", ".sha1", ".sha256",
    ".sig", ".asc", ".mp3", ".wav", ".srt", ".url", ".lnk", ".license", ".lock", ".tmp", ".bak", ".cls",
}  # fmt: skip
"""What nobody means as an image: notes, tables, annotations, programs, weights."""
BESIDE_NAMES = {"readme", "license", "licence", "copying", "changelog", "makefile", "dockerfile", "notice", "authors"}
"""File names without a suffix that nobody means as an image, in lower case."""
_MOST_KINDS = 8  # that a line names; the answer holds all
_COUNTED = ("file", "folder")  # what more than one of takes an s

_log = logging.getLogger("maekit")


@dataclass(frozen=True)
class PassedOver:
    """Counts of what was met and not taken, by what it is: `.heic`, `without suffix`, `second image in a sample`."""

    images: Counter[str] = field(default_factory=Counter)
    """What a person may have meant as images of this source."""
    beside: Counter[str] = field(default_factory=Counter)
    """What lies beside the images and is of another kind, such as `parquet files`."""
    notes: tuple[str, ...] = ()
    """Whole sentences on what counts cannot say, such as a class folder left without images."""

    def __add__(self, other: "PassedOver") -> "PassedOver":
        return PassedOver(self.images + other.images, self.beside + other.beside, (*self.notes, *other.notes))

    def __sub__(self, other: "PassedOver") -> "PassedOver":
        """What of it is not in another, which was met on the same walk."""
        notes = tuple(note for note in self.notes if note not in other.notes)
        return PassedOver(self.images - other.images, self.beside - other.beside, notes)

    def words(self) -> str:
        """One line for a person: `passed over: 3 .heic; beside the images: 2 parquet files`. Empty: nothing was."""
        return "; ".join(self.lines())

    def lines(self) -> list[str]:
        """The same, a line for each count of it and for each note."""
        counted = (("passed over", self.images), ("beside the images", self.beside))
        parts = [f"{name}: {_listed(counts)}" for name, counts in counted if counts]
        return [printable(line) for line in (*parts, *self.notes)]

    def as_dict(self) -> dict[str, dict[str, int] | list[str]]:
        """The same for `--json`."""
        images, beside = (
            {printable(what): count for what, count in counts.items()} for counts in (self.images, self.beside)
        )
        return {"images": images, "beside": beside, "notes": [printable(note) for note in self.notes]}


def say(*sources: "Source") -> None:
    """Log, a line each, what sources passed over; nothing where they took all they met."""
    for source in sources:
        left = source.passed_over
        if words := left.words():
            level = logging.WARNING if left.images or left.notes else logging.INFO
            _log.log(level, "%s: %s", printable(source.text), words)


def is_beside(what: str) -> bool:
    """Whether nobody means files of that suffix, or of that name without one, as images."""
    return what in _BESIDE or what.lower() in BESIDE_NAMES


def suffix(name: str) -> str:
    """A file name's, in lower case; `without suffix` where it has none.

    What follows the last dot of `scan.0001` or `Notes on no. 5` is no suffix: that has eight letters or digits at most,
    a letter among them.
    """
    found = _SUFFIX.search(name)
    return "without suffix" if found is None else found[0].lower()


def _listed(counts: Counter[str]) -> str:
    """`3 .heic, 2 run folders`: the most frequent ones, and how many the rest are."""
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    words = [f"{count} {what}{'s' * (count > 1 and what.endswith(_COUNTED))}" for what, count in ordered[:_MOST_KINDS]]
    rest = sum(count for _, count in ordered[_MOST_KINDS:])
    return ", ".join([*words, f"{rest} of {len(ordered) - _MOST_KINDS} other kinds"] if rest else words)


def printable(text: str) -> str:
    """With what is no UTF-8 in a file's name replaced, so that it can be printed and stored."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
