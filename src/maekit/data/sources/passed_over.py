"""What a source left out, so that nothing is passed over without a word."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


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

    def words(self) -> str:
        """One line for a person: `passed over: 3 .heic; beside the images: 2 parquet files`. Empty: nothing was."""
        parts = [
            f"{name}: {', '.join(f'{count} {what}' for what, count in counts.most_common())}"
            for name, counts in (("passed over", self.images), ("beside the images", self.beside))
            if counts
        ]
        return "; ".join([*parts, *self.notes])

    def as_dict(self) -> dict[str, dict[str, int] | list[str]]:
        """The same for `--json`."""
        return {"images": dict(self.images), "beside": dict(self.beside), "notes": list(self.notes)}


def suffix_of(names: Iterable[str]) -> Counter[str]:
    """How many of these file names have which suffix, in lower case; `without suffix` where they have none."""
    return Counter(
        f".{name.rpartition('.')[2].lower()}" if "." in name.lstrip(".") else "without suffix" for name in names
    )
