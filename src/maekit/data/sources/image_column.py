"""Which of several columns holds the images."""

from collections.abc import Collection, Sequence

from maekit.data.sources.list_lines import PATH_COLUMNS
from maekit.errors import DataError

_USUAL = ("image", "img", *PATH_COLUMNS)


def choose_column(text: str, columns: Collection[str], found: Sequence[str], asked: str | None) -> tuple[str, str]:
    """(the column of images, what is to be said of others, or nothing).

    columns: all there are. found: those that can be it. The one asked for; else the only one, or the one with the most
    usual name. Raises DataError where there is none, or several and no telling which.
    """
    if asked is not None and asked not in columns:
        raise DataError(f"{text}: has no column {asked!r}; there are {', '.join(columns)}")
    if asked is None and not found:
        raise DataError(f"{text}: has no column of images, only {', '.join(columns)}")
    usual = [name for name in _USUAL if name in found]
    if asked is None and len(found) > 1 and not usual:
        ways = " or ".join(f"--image-column {name}" for name in found)
        raise DataError(f"{text}: columns {', '.join(found)} hold images; say which is meant: {ways}")
    chosen = asked or (usual or list(found))[0]
    others = [name for name in found if name != chosen]
    said = f"column {', '.join(others)} is left out, as {chosen} holds the images (--image-column)" if others else ""
    return chosen, said
