"""Which kind of source a folder is: of images, of parquet or of tar files; never two at once."""

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from maekit.data.sources.contents import PACKED, Contents, Parts
from maekit.data.sources.source import is_image_name
from maekit.data.sources.splits import Splits, counted, find_splits
from maekit.errors import DataError

IMAGES = ""
"""The kind of plain images, where that of packed ones is their suffix."""


@dataclass(frozen=True)
class Kind:
    """Files of one kind in a folder, as paths relative to it, and the splits they are of."""

    suffix: str
    files: Sequence[Parts]
    splits: Splits | None

    @property
    def noun(self) -> str:
        """What one of its files is called."""
        return f"{self.suffix} file" if self.suffix else "image"


def kinds_of(contents: Contents) -> list[Kind]:
    """The kinds of sources that a folder holds.

    Beside others, a parquet file without a column of bytes, such as a table of features, and a tar file without an
    image are no sources: `contents` counts them as lying beside the images.
    """
    files: dict[str, list[Parts]] = {IMAGES: contents.images} | {
        suffix: [parts for parts in contents.packed if parts[-1].lower().endswith(suffix)] for suffix in PACKED
    }
    there = {suffix: found for suffix, found in files.items() if found}
    if len(there) > 1:
        for suffix in set(there) & set(PACKED):
            there[suffix] = list(_with_images(contents, there[suffix]))
    return [
        Kind(suffix, found, find_splits(found, by_file_name=suffix != IMAGES))
        for suffix, found in there.items()
        if found
    ]


def refuse_several_kinds(text: str, kinds: Sequence[Kind]) -> None:
    """Raises DataError where there is more than one kind, with how to name each."""
    if len(kinds) < 2:
        return
    named = " and ".join(f"{counted(len(kind.files), kind.noun)} ({_example(kind)})" for kind in kinds)
    ways = [way for kind in kinds if (way := _way(text, kind, kinds))]
    advice = f"name the one that is meant: {' or '.join(ways)}" if ways else "move one of them to another folder"
    if ways and len(ways) < len(kinds):
        advice += ", or move what is not meant to another folder"
    raise DataError(f"{text}: holds {named}, which are sources of different kinds; {advice}")


def _example(kind: Kind) -> str:
    return "/".join(kind.files[0]) + (", ..." if len(kind.files) > 1 else "")


def _way(text: str, kind: Kind, kinds: Sequence[Kind]) -> str:
    """What names the files of one kind alone: their folder, or a pattern; empty where neither does."""
    at = text.rstrip("/") or "/"
    folder = _common([parts[:-1] for parts in kind.files])
    others = [parts for other in kinds if other is not kind for parts in other.files]
    if not any(parts[: len(folder)] == folder for parts in others):
        return "/".join([at, *folder])
    suffixes = {PurePosixPath(parts[-1]).suffix for parts in kind.files}
    if all(parts[:-1] == folder for parts in kind.files) and len(suffixes) == 1:
        return f"'{'/'.join([at, *folder, '*' + suffixes.pop()])}'"
    return ""


def _common(folders: Sequence[Parts]) -> Parts:
    least, most = min(folders), max(folders)
    same = 0
    while same < min(len(least), len(most)) and least[same] == most[same]:
        same += 1
    return least[:same]


def _with_images(contents: Contents, files: Sequence[Parts]) -> Iterator[Parts]:
    for parts in files:
        file = contents.root.joinpath(*parts)
        suffix = file.suffix.lower()
        if _parquet_has_bytes(file) if suffix == ".parquet" else _tar_has_image(file):
            yield parts
        else:
            contents.beside[f"{suffix.removeprefix('.')} file"] += 1


def _parquet_has_bytes(file: Path) -> bool:
    """Whether a column holds bytes, at any depth; a file that cannot be read may."""
    try:
        return any(_has_bytes(column.type) for column in pq.read_schema(file))
    except (OSError, pa.ArrowException):
        return True


def _has_bytes(kind: pa.DataType) -> bool:
    binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    return binary or any(_has_bytes(kind.field(number).type) for number in range(kind.num_fields))


def _tar_has_image(file: Path) -> bool:
    """Whether a member is an image; a file that cannot be read may have one."""
    try:
        with tarfile.open(file, "r:") as tar:
            return any(is_image_name(PurePosixPath(member.name).name) for member in tar if member.isreg())
    except (OSError, tarfile.TarError, EOFError):
        return True
