"""Where images come from: one string, recognised by what it is, and one file per kind of source."""

from collections import Counter
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from maekit import parts
from maekit.config.objects import Given
from maekit.data.sources.contents import Contents, Parts, survey
from maekit.data.sources.digits import DigitsSource
from maekit.data.sources.elsewhere import Space
from maekit.data.sources.folder import open_folder
from maekit.data.sources.given import of_object
from maekit.data.sources.hub import HubSource
from maekit.data.sources.kinds import IMAGES, Kind, kinds_of, refuse_several_kinds
from maekit.data.sources.list_file import open_images, open_list
from maekit.data.sources.parquet import ParquetSource
from maekit.data.sources.passed_over import PassedOver, say
from maekit.data.sources.patterns import matching
from maekit.data.sources.shards import ShardsSource
from maekit.data.sources.source import IMAGE_SUFFIXES, Source, home_path, is_image_name
from maekit.data.sources.splits import chosen, find_splits, folder_of, refuse_several_splits
from maekit.data.sources.urls import is_url, open_url
from maekit.errors import DataError, UsageError

__all__ = ["Source", "Space", "find_source", "in_any_order", "open_images", "open_source"]

_OF_FILES: dict[str, Callable[[str, list[Path], str | None], Source]] = {
    ".parquet": ParquetSource,
    ".tar": lambda text, files, _: ShardsSource(text, files),
}


def open_source(text: str, image_column: str | None = None, space: Space | None = None) -> Source:
    """`find_source`, and say in the log what was met and not taken."""
    source = find_source(text, image_column, space)
    say(source)
    return source


def in_any_order(source: Source, limit: float) -> None:
    """Make ready to be read in any order what is slow in any but its own: of large parquet files a copy is made.

    limit: bytes that the cache folder may take; 0: no copy.
    """
    if limit and isinstance(source, ParquetSource):
        source.copy_images(limit)


def find_source(text: str, image_column: str | None = None, space: Space | None = None) -> Source:
    """The source that a string names.

    A folder of images; a list file; .parquet or .tar files: one, a folder of them, a pattern (`train-*.parquet`) or a
    range (`shard-{000..099}.tar`); any of these with `@train` or another split that is there, `@train+val` for several;
    a URL of such .parquet or .tar files; `hf:REPO@split`; `digits:train`, `digits:test`, `digits:`; `module:object`, a
    class of the user's own; an object of Python in its place. image_column: which column holds the images, of sources
    with several. space: how much is kept of what lies elsewhere. What it met and did not take is in `passed_over`.
    Raises DataError, one line, where there is nothing, or nothing that is understood, no image, more than one kind of
    source, or several splits and none is chosen.
    """
    try:
        source = _recognise(text, image_column, space or Space())
    except OSError as error:
        raise DataError(f"{text}: cannot be opened ({error.strerror})") from None
    if not len(source):
        raise DataError(f"{text}: holds no image{_for_want_of(source.passed_over)}")
    if image_column is not None and not isinstance(source, ParquetSource | HubSource):
        source.passed_over += PassedOver(notes=(f"it has no columns, so --image-column {image_column} says nothing",))
    return source


def _recognise(text: str, image_column: str | None, space: Space) -> Source:
    if isinstance(text, Given) and text.object is not None:
        return of_object(text, text.object, image_column)
    if text.startswith("digits:"):
        return DigitsSource(text, text.partition(":")[2])
    if is_url(text):
        return open_url(text, image_column, space)
    if text.startswith("hf:"):
        return HubSource(text, image_column)
    if not text:
        raise DataError(
            "no source is named; give a folder of images, a list file, .parquet, tar shards, hf:REPO@split or digits:"
        )
    source = _opened(text, text, None, image_column)  # one without an image counts as false
    source = _own(text) if source is None else source
    if source is None and "@" in text:  # after what is really called so
        named, _, split = text.rpartition("@")
        source = _opened(text, named, split, image_column) if named and split else None
    if source is None:
        if text.startswith("<"):
            raise DataError(f"{text}: was an object of the program that wrote this; give it again, or a source on disk")
        raise DataError(_not_there(text, home_path(text)))
    return source


def _own(text: str) -> Source | None:
    """A source of the user's own, `module:object` with options behind it."""
    if not parts.is_part(text) and text.partition(",")[0] not in parts.offered("source"):
        return None
    parts.say(text)
    try:
        made = parts.find("source", text).make()
    except UsageError as error:
        raise DataError(f"{text}: no such file or folder, and {error}") from error
    lacks = [name for name in ("__len__", "path", "label", "read", "fingerprint", "classes") if not hasattr(made, name)]
    if lacks:
        raise DataError(f"{text}: a source has to have {', '.join(lacks)}, as maekit.data.sources.Source describes")
    made.text, made.passed_over = text, getattr(made, "passed_over", PassedOver())
    made.size = getattr(made, "size", _unknown)
    return made


def _unknown(_: int) -> int:
    return -1


def _opened(text: str, named: str, split: str | None, image_column: str | None) -> Source | None:
    """A source by the path that names it, and the split of it; None where there is no such thing.

    text: both, as the user wrote them.
    """
    path = home_path(named)
    if path.is_dir():
        return _folder(text, named, path, split, image_column)
    if path.exists():
        return _file(text, named, path, split, image_column)
    files = matching(path)
    return _of_pattern(text, named, files, split, image_column) if files else None


def _folder(text: str, named: str, path: Path, split: str | None, image_column: str | None) -> Source:
    contents = survey(path)
    kinds = kinds_of(contents)
    if len(kinds) > 1 and split is not None:
        kinds = [kind for kind in kinds if kind.splits is not None and kind.splits.has(split)] or kinds
    if not kinds:
        looked = " ".join((*IMAGE_SUFFIXES, *_OF_FILES))
        left = _for_want_of(contents.passed_over())
        raise DataError(f"{named}: holds no image{left or f'; looked at any depth for {looked}'}")
    refuse_several_kinds(named, kinds)
    kind = kinds[0]
    if split is None:
        refuse_several_splits(named, kind.files, kind.splits, kind.noun)
        places = None
    else:
        places = chosen(named, kind.splits, split)
    if kind.suffix == IMAGES:
        source = _images(text, named, contents, kind, places)
    else:
        files = kind.files if places is None else [kind.files[place] for place in places]
        source = _OF_FILES[kind.suffix](text, [path.joinpath(*parts) for parts in files], image_column)
        source.passed_over += contents.passed_over()
    if places is not None and kind.splits is not None and kind.splits.strays:
        strays = Counter({f"{kind.noun} in no split": len(kind.splits.strays)})
        source.passed_over += PassedOver(images=strays)
    return source


def _images(text: str, named: str, contents: Contents, kind: Kind, places: list[int] | None) -> Source:
    """Images of a folder; where all that are asked for lie in the folder of one split, as that folder is opened."""
    splits = kind.splits
    if splits is None:
        return open_folder(text, contents)
    words = [word for word, of in splits.files.items() if places is None or set(of) <= set(places)]
    inside = folder_of(kind.files, splits, words[0]) if len(words) == 1 else None
    if inside is None or (places is None and splits.strays):
        return open_folder(text, contents, places, None if places is None else splits.level)
    below = survey(contents.root.joinpath(*inside))
    refuse_several_splits(
        "/".join([named.rstrip("/"), *inside]), below.images, find_splits(below.images, by_file_name=False), kind.noun
    )
    below.metadata = [*contents.metadata_above(inside), *below.metadata]
    source = open_folder(text, below)
    if places is None:
        outside = contents.passed_over() - below.passed_over()
        note = f"all images lie in {'/'.join(inside)}, whose folders are taken for the classes"
        source.passed_over += outside + PassedOver(notes=(note,))
    return source


def _file(text: str, named: str, path: Path, split: str | None, image_column: str | None) -> Source:
    if is_image_name(path.name):
        raise DataError(
            f"{named}: is one image; a source is a folder, a list file, .parquet, tar shards or hf:REPO@split"
        )
    if path.suffix not in _OF_FILES:
        listed = open_list(named, path, split)
        listed.text = text
        return listed
    if split is not None:
        chosen(named, find_splits([(path.name,)], by_file_name=True), split)
    return _OF_FILES[path.suffix](text, [path], image_column)


def _of_pattern(text: str, named: str, files: list[Path], split: str | None, image_column: str | None) -> Source | None:
    path = Path(named)
    if all(is_image_name(file.name) for file in files) and split is None:
        return open_images(files, text)
    if path.suffix not in _OF_FILES:
        return None
    names: list[Parts] = [(file.name,) for file in files]
    splits = find_splits(names, by_file_name=True)
    if split is not None:
        files = [files[place] for place in chosen(named, splits, split)]
    elif "{" not in path.name:  # braces say each file that is meant
        refuse_several_splits(named, names, splits, f"{path.suffix} file")
    return _OF_FILES[path.suffix](text, files, image_column)


def _for_want_of(left: PassedOver) -> str:
    """What might have been images, after `holds no image`."""
    if not left.images:
        return f"; {left.words()}" if left.words() else ""
    suffixes = " ".join(what for what, _ in left.images.most_common(3) if what.startswith("."))
    return f"; {left.words()}" + (
        f"; maekit reads no {suffixes}: convert them to .jpg or .png first" if suffixes else ""
    )


def _not_there(text: str, path: Path) -> str:
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = get_close_matches(path.name, siblings, n=1)
    return f"{text}: no such file or folder" + (f"; did you mean {path.parent / close[0]}?" if close else "")
