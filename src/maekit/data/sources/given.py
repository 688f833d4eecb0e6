"""Data sets of Python, given where text would name a source: torch's and others' that hand out items by number."""

import io
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from maekit.config.objects import MapStyle
from maekit.data.arrays import Pixels
from maekit.data.sources.hub import HubSource
from maekit.data.sources.labels import LabelledImages, found_labels
from maekit.data.sources.list_file import open_images
from maekit.data.sources.passed_over import PassedOver
from maekit.data.sources.source import Source, fingerprint, home_path, read_file, sampled
from maekit.errors import DataError, ImageError

_IMAGES, _LABELS = ("image", "img"), ("label", "labels")
_PLAIN = ("L", "RGB")  # of Pillow's modes, those whose pixels say all
_UNSTEADY = (
    "another image comes each time one is asked for (by random transforms?), so no run on it can be repeated exactly; "
    "give it without them, maekit augments by itself"
)

log = logging.getLogger("maekit")


def of_object(text: str, value: Any, image_column: str | None) -> Source:
    """The source that a data set of `datasets`, a list of paths or of (path, label), or anything map-style is."""
    if hasattr(value, "with_format") and hasattr(value, "features"):  # of `datasets`
        return HubSource(text, image_column, value)
    if isinstance(value, Sequence):
        pairs = [item if isinstance(item, tuple) and len(item) == 2 else (item, -1) for item in value]
        if all(isinstance(path, str | os.PathLike) for path, _ in pairs):
            paths = [home_path(os.fspath(path)) for path, _ in pairs]
            return open_images(paths, text, [_plain(label) for _, label in pairs])
    return MapStyleSource(text, value)


class MapStyleSource(LabelledImages):
    """Items by number, each an image, (image, label) or {image, label}.

    An image is a path, a Pillow image, or an array or tensor [H, W], [H, W, C] or [C, H, W] (C is the shorter one); its
    values mean what they mean in a file. Labels, numbers or words, are those in `targets` where the data set, or what
    it is a Subset of, has them; else every item is read for its label once, here. `classes` names them.
    """

    def __init__(self, text: str, items: MapStyle) -> None:
        self.text, self._items, self.passed_over = text, items, PassedOver()
        if not len(items):
            raise DataError(f"{text}: holds no image")
        shape = tuple(getattr(items, "shape", ()))
        if len(shape) == 2 or (len(shape) == 3 and {shape[0], shape[2]} & {3, 4}):
            raise DataError(
                f"{text}: {list(shape)} may be one image; give [N, C, H, W], [N, H, W, C] or a list of images"
            )
        try:
            image, label = self._item(0)
            data = self.read(0)
        except ImageError as error:
            raise DataError(f"{text}: item 0 {error}") from None
        self._of_paths = isinstance(image, str | os.PathLike)
        self._digest = ""
        again = self.read(0)
        if not (np.array_equal(data, again) if isinstance(data, np.ndarray) else data == again):
            self.passed_over = PassedOver(notes=(_UNSTEADY,))
        labels = [None] * len(items) if label is None else self._every_label(label)
        self._labels, self.classes = found_labels(text, labels, _found(items, "classes", _names))

    def path(self, index: int) -> str:
        if self._of_paths:
            return str(self._item(index)[0])
        self._digest = self._digest or self.fingerprint()[:6]  # tells it from others of its class
        return f"{type(self._items).__name__}-{self._digest}[{index}]"

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        image = self._item(index)[0]
        if isinstance(image, str | os.PathLike):
            return read_file(home_path(os.fspath(image)))
        if isinstance(image, Image.Image):
            return _of_picture(image)
        return _of_array(image)

    def fingerprint(self) -> str:
        """Of classes, labels and the content of up to 64 images, evenly spread: a change in others is not seen."""
        return fingerprint(self.classes, sampled(self), self._labels, [])

    def _item(self, index: int) -> tuple[Any, Any]:
        try:
            item = self._items[index]
        except Exception as error:  # whatever somebody's data set raises
            raise ImageError(f"cannot be had ({type(error).__name__}: {error})") from error
        if isinstance(item, Mapping):
            image = next((item[name] for name in _IMAGES if name in item), None)
            return image, _plain(next((item[name] for name in _LABELS if name in item), None))
        if isinstance(item, tuple | list) and item:
            return item[0], _plain(item[1]) if len(item) > 1 else None
        return item, None

    def _every_label(self, first: Any) -> list[Any]:
        targets = _found(self._items, "targets", lambda values: [_plain(value) for value in values])
        if targets and len(targets) == len(self._items) and targets[0] == first:
            return targets
        log.info("%s: has no list of labels, `targets`, so all of it is read once for them", self.text)
        return [self._item(index)[1] for index in range(len(self._items))]


def _found(items: Any, name: str, read: Any) -> Any:
    """An attribute of a data set, or of what it is a Subset of; None where neither has it."""
    if (values := getattr(items, name, None)) is not None:
        return read(values)
    if not (hasattr(items, "dataset") and hasattr(items, "indices")):
        return None
    below = _found(items.dataset, name, read)
    return [below[index] for index in items.indices] if below and name == "targets" else below


def _names(classes: Any) -> list[str]:
    """Names of classes, where one may have several."""
    return [name if isinstance(name, str) else ", ".join(map(str, name)) for name in classes]


def _plain(label: Any) -> Any:
    """A label as a number or word of Python's own."""
    return label.item() if hasattr(label, "item") and getattr(label, "ndim", 0) == 0 else label


def _of_picture(image: Image.Image) -> bytes | NDArray[np.uint8]:
    """A Pillow image, turned as its EXIF says, as its pixels or, where they do not say all, in a lossless file."""
    turned = ImageOps.exif_transpose(image)
    if turned.mode in _PLAIN and not turned.has_transparency_data:
        return np.array(turned)
    written = io.BytesIO()
    turned.save(written, format="PNG" if turned.mode in ("1", "LA", "I", "I;16", "P", "L", "RGB", "RGBA") else "TIFF")
    return written.getvalue()


def _of_array(image: Any) -> bytes | NDArray[np.uint8]:
    is_tensor = hasattr(image, "detach")
    values: Pixels = np.asarray(image.detach().cpu() if is_tensor else image)
    if values.ndim not in (2, 3) or values.dtype.kind not in "biuf":
        raise ImageError(
            f"is {type(image).__name__} of shape {values.shape}; an image is a path, a Pillow image, or an array or "
            "tensor [H, W], [H, W, C] or [C, H, W]"
        )
    if values.ndim == 3 and values.shape[0] < values.shape[2] + is_tensor:
        values = np.moveaxis(values, 0, -1)
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    written = io.BytesIO()
    np.save(written, np.ascontiguousarray(values))
    return written.getvalue()
