"""Every image the page can show, by its name: `sample:boat`, `digit:3`, `gallery:17`, or an upload's hash.

Uploads are held in memory as the models see them, the newest of them; nothing is written.
"""

import hashlib
import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from math import prod

import numpy as np
from PIL import Image
from torch import Tensor

from maekit.app import samples
from maekit.app.decoding import View
from maekit.app.exhibit import shown
from maekit.app.gallery import Gallery
from maekit.app.reading import Reader
from maekit.data.sources.digits import DigitsSource
from maekit.data.sources.source import evenly_spread
from maekit.errors import ImageError

_HELD = 32  # uploads
_OF_GALLERY = 12  # offered at the start
_DIGITS = 6
_SMALL = 32  # px, up to which a model of one channel is offered digits
_THUMBNAIL = 96  # px


class Unknown(Exception):  # noqa: N818 - of the page alone
    """An image that is not, or no longer, here."""


class Images:
    """views: all ways in which models see one."""

    def __init__(self, views: Sequence[View], reader: Reader, gallery: Gallery | None) -> None:
        self._views = list(dict.fromkeys(views))
        self._reader, self._gallery = reader, gallery
        self._uploads: OrderedDict[str, dict[View, Tensor | ImageError]] = OrderedDict()
        self._lock = threading.Lock()
        self._digits = DigitsSource("digits:test", "test")

    def offered(self) -> list[dict[str, str]]:
        """{image, name} of what can be taken at once."""
        found = []
        if self._gallery is not None:
            numbers = self._gallery.numbers
            evenly = [numbers[place] for place in evenly_spread(len(numbers), _OF_GALLERY)]
            found = [{"image": f"gallery:{number}", "name": self._gallery.name(number)} for number in evenly]
        if any(view.channels == 1 and max(view.image_hw) <= _SMALL for view in self._views):
            found += [{"image": f"digit:{number}", "name": f"digit {number}"} for number in range(_DIGITS)]
        return found + [{"image": f"sample:{name}", "name": name} for name in samples.SAMPLES]

    def add(self, data: bytes) -> str:
        """Hold an upload; its name. Raises ImageError where no model can see it."""
        name = hashlib.sha256(data).hexdigest()
        with self._lock:
            if name in self._uploads:
                self._uploads.move_to_end(name)
                return name
        read = self._reader.read(data, self._views)
        with self._lock:
            self._uploads[name] = dict(zip(self._views, read, strict=True))
            while len(self._uploads) > _HELD:
                self._uploads.popitem(last=False)
        return name

    def get(self, name: str, view: View) -> Tensor:
        """[C, H, W]. Raises Unknown, or ImageError where this model cannot see it."""
        kind, _, rest = name.partition(":")
        try:
            if kind == "sample":
                return samples.of(rest, view)
            if kind == "digit":
                return view.of(self._digits.read(int(rest)))
            if kind == "gallery" and self._gallery is not None:
                return self._gallery.image(int(rest), view)
            with self._lock:
                image = self._uploads[name][view]
        except (KeyError, ValueError, IndexError):
            raise Unknown(name) from None
        if isinstance(image, ImageError):
            raise image
        return image

    def thumbnail(self, name: str) -> bytes:
        """A small PNG of it, as the model that sees most of it does. Raises as `get`."""
        most = max(self._views, key=lambda view: (min(view.channels, 3), prod(view.image_hw)))
        picture = Image.fromarray(shown(self.get(name, most), ())).convert("RGB")
        small = max(picture.size) < _THUMBNAIL
        picture = picture.resize((_THUMBNAIL, round(_THUMBNAIL * picture.height / picture.width)),
                                 Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)  # fmt: skip
        return as_png(np.asarray(picture))


def as_png(pixels: np.ndarray) -> bytes:
    """Pixels [H, W] or [H, W, 3] uint8 as a PNG, quickly."""
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, format="PNG", compress_level=1)
    return written.getvalue()
