"""A folder of class folders, or of unlabelled images at any depth."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from maekit.data.shared import shared
from maekit.data.sources.contents import Contents, Parts
from maekit.data.sources.labels import Classes, LabelledImages, Labels, no_labels, string_labels
from maekit.data.sources.metadata import read_metadata
from maekit.data.sources.passed_over import PassedOver
from maekit.data.sources.source import Names, evenly_spread, file_size, fingerprint, read_file
from maekit.data.sources.splits import says_split

_NAMED = 5  # folders that a sentence names
_SIZED = 1000  # files whose sizes are in the fingerprint


class FilesSource(LabelledImages):
    """Images that are files, by their paths from a folder on, with the labels they are given."""

    def __init__(
        self,
        text: str,
        root: Path,
        names: Names | Iterable[str],
        labels: Labels,
        classes: Classes,
        passed_over: PassedOver,
    ) -> None:
        self.text, self.classes, self.passed_over = text, classes, passed_over
        self._names = names if isinstance(names, Names) else Names.of(names)
        self._root, self._labels = root, shared(labels)

    def path(self, index: int) -> str:
        return str(self._root / self._names[index])

    def places(self, paths: Collection[str]) -> list[int]:
        """Numbers of the images that have one of these paths."""
        above = f"{self._root}/".removeprefix("./")
        names = [path.removeprefix(above) for path in paths]
        found = self._names.places([*names, *(f"./{name}" for name in names), *paths])
        return [index for index in found.tolist() if self.path(index) in paths]

    def read(self, index: int) -> bytes:
        return read_file(self._root / self._names[index])

    def size(self, index: int) -> int:
        return file_size(self._root / self._names[index])

    def fingerprint(self) -> str:
        """Of more than a thousand files, the sizes of a thousand, evenly spread."""
        sizes = (self.size(index) for index in evenly_spread(len(self), _SIZED).tolist())
        return fingerprint(self.classes, self._names, self._labels, sizes)


def open_folder(
    text: str, contents: Contents, places: Sequence[int] | None = None, level: int | None = None
) -> FilesSource:
    """The images of a folder that was walked.

    Where every image lies in some subfolder, and there are at least two of those, the top-level folders are the
    classes, sorted by name in Unicode's composed form, with images at any depth below each. Images directly in the
    folder, or a single subfolder for all, make it unlabelled. A metadata file beside the images goes before all that.

    places: of the images that are taken; None: all. level: the depth of folders that are splits, and so no classes.
    """
    images = contents.images if places is None else [contents.images[place] for place in places]
    within = _without_splits(images, level)
    labels, classes = _of_tops(within)
    told, notes = None, list[str]()
    if contents.metadata:
        told, notes = read_metadata(text, contents.metadata, [contents.root.joinpath(*parts) for parts in images])
    if told is not None:
        if classes is not None:
            notes.append(f"labels are the metadata's, not the folders' ({_few(classes)})")
        labels, classes = told
    else:
        notes += _on_tops(text, within, classes)
    if places is None:
        notes += _without_images(contents, within)
    passed_over = contents.passed_over() + PassedOver(notes=tuple(notes))
    return FilesSource(text, contents.root, map("/".join, images), labels, classes, passed_over)


def _without_splits(images: Sequence[Parts], level: int | None) -> list[Parts]:
    """Paths as they would be if the folders of splits, and what all of those lie in, were not there."""
    if level is None:
        return list(images)
    above = {parts[:level] for parts in images}
    return [(() if len(above) == 1 else parts[:level]) + parts[level + 1 :] for parts in images]


def _of_tops(images: Sequence[Parts]) -> tuple[Labels, Classes]:
    labels, classes = string_labels([parts[0] if len(parts) > 1 else None for parts in images])
    return (labels, classes) if classes and len(classes) > 1 and (labels >= 0).all() else no_labels(len(images))


def _on_tops(text: str, images: Sequence[Parts], classes: Classes) -> Iterator[str]:
    """What a person may not expect of how folders became classes."""
    tops = {parts[0] for parts in images if len(parts) > 1}
    beside = next((parts[0] for parts in images if len(parts) == 1), None)
    if len(tops) > 1 and beside is not None:
        yield f"images are unlabelled, as {beside} lies beside the {len(tops)} subfolders"
    if len(tops) == 1 and beside is None:
        top = next(iter(tops))
        inside = sorted({parts[1] for parts in images if len(parts) > 2})
        if len(inside) > 1 and all(len(parts) > 2 for parts in images):
            yield f"images are unlabelled, as all lie in {top}; {text.rstrip('/')}/{top} has the classes {_few(inside)}"
    for name in sorted(tops) if classes is not None else ():
        if says_split(name):
            yield f"folder {name} is taken for a class, as other folders than splits lie beside it"


def _without_images(contents: Contents, images: Sequence[Parts]) -> Iterator[str]:
    """Folders beside those of classes that hold nothing which can be read, though it may have been meant to be."""
    filled = {parts[0] for parts in images if len(parts) > 1}
    if not filled:
        return
    for top, is_empty in sorted(contents.tops.items()):
        meant = contents.meant_in(top)
        if top not in filled and (meant or is_empty):
            what = ", ".join(f"{count} {suffix}" for suffix, count in meant.most_common(_NAMED)) or "it is empty"
            yield f"class folder {top} has no image that can be read: {what}"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else "")
