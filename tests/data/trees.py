"""Folders of small files, by their names."""

import io
from pathlib import Path

import pytest
from PIL import Image
from source_forms import write_parquet, write_shard

from maekit.data.sources import find_source
from maekit.data.sources.source import Source
from maekit.errors import DataError


def png(value: int = 0) -> bytes:
    """A picture of 4 x 3 pixels, whose red says which."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (value % 256, value // 256, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def tree(root: Path, *names: str, start: int = 0) -> Path:
    """Files by their relative names: pictures, parquet and tar files of a row each, and texts; a name ending in / is
    an empty folder."""
    for number, name in enumerate(names, start):
        file = root / name
        if name.endswith("/"):
            file.mkdir(parents=True)
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".parquet":
            write_parquet(file, [(png(number), number % 2)])
        elif file.suffix == ".tar":
            write_shard(file, {f"{number}.png": png(number)})
        else:
            file.write_bytes(png(number) if file.suffix in (".png", ".jpg") else b"a note\n")
    return root


def names_of(source: Source, root: Path) -> list[str]:
    """Relative paths of a source's images."""
    return [str(Path(source.path(index)).relative_to(root)) for index in range(len(source))]


def labels_by_name(source: Source, root: Path) -> dict[str, str | None]:
    """Each image's class, by its relative path."""
    labels = [source.label(index) for index in range(len(source))]
    classes = [None if label is None else (source.classes or ())[label] for label in labels]
    return dict(zip(names_of(source, root), classes, strict=True))


def refusal(text: object, **options: str) -> str:
    """The one line with which a source is refused."""
    with pytest.raises(DataError) as caught:
        find_source(str(text), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
