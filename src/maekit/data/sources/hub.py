"""A dataset of the Hugging Face hub, or a folder in one of its layouts, through `datasets`."""

from pathlib import Path
from typing import Any

from maekit.data.sources.image_column import choose_column
from maekit.data.sources.labels import Classes, LabelledImages, Labels, found_labels, no_labels
from maekit.data.sources.passed_over import PassedOver
from maekit.data.sources.source import fingerprint, read_file, sampled
from maekit.errors import DataError, ImageError


class HubSource(LabelledImages):
    """One split of a dataset with a column of images: `hf:REPO@split`, without `@split` where there is one split only.

    It lies in `datasets`' own memory-mapped cache, encoded as it came.
    """

    def __init__(self, text: str, image_column: str | None = None, given: Any = None) -> None:
        """image_column: the one that holds the images; None: as `choose_column` tells. given: the split itself."""
        self._given = given is not None
        rows = _load(text) if given is None else given.with_format(None)
        described = [name for name, feature in rows.features.items() if type(feature).__name__ == "Image"]
        found = described or [name for name in ("image", "img") if name in rows.features]
        image, said = choose_column(text, list(rows.features), found, image_column)
        self.text, self.passed_over = text, PassedOver(notes=(said,) if said else ())
        label = _column(rows.features, "ClassLabel", ("label", "labels"))
        from datasets import Image

        self._rows = rows.select_columns([image]).cast_column(image, Image(decode=False))
        self._image = image
        self._labels, self.classes = _labels(text, rows, label)

    def path(self, index: int) -> str:
        return f"{self.text}:{index}"

    def read(self, index: int) -> bytes:
        cell = self._rows[index][self._image] or {}
        if cell.get("bytes") is not None:
            return bytes(cell["bytes"])
        if cell.get("path"):
            return read_file(Path(cell["path"]))
        raise ImageError("the row holds no image")

    def fingerprint(self) -> str:
        """Of a split that was given, the content of up to 64 images too: the size is that of all it is a part of."""
        names = [self._image, *(sampled(self) if self._given else ())]
        return fingerprint(self.classes, names, self._labels, [self._rows.data.nbytes])


def _load(text: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError(f"{text}: needs the package datasets: pip install 'maekit[hf]'") from None
    name, _, split = text.removeprefix("hf:").partition("@")
    try:
        loaded = datasets.load_dataset(name, split=split or None)
    except Exception as error:  # of the network, the cache, the file formats and of datasets itself
        raise DataError(f"{text}: cannot be loaded ({str(error).split(chr(10), 1)[0]})") from None
    if not isinstance(loaded, dict):
        return loaded
    if len(loaded) > 1:
        raise DataError(f"{text}: has the splits {', '.join(loaded)}; name one, as in {text}@{next(iter(loaded))}")
    return next(iter(loaded.values()))


def _column(features: Any, kind: str, names: tuple[str, ...]) -> str | None:
    """The first column of that kind, else the first with a usual name."""
    of_kind = [name for name, feature in features.items() if type(feature).__name__ == kind]
    return next(iter(of_kind + [name for name in names if name in features]), None)


def _labels(text: str, rows: Any, column: str | None) -> tuple[Labels, Classes]:
    if column is None:
        return no_labels(len(rows))
    return found_labels(text, list(rows[column]), getattr(rows.features[column], "names", None))
