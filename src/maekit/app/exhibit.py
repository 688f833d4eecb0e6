"""One W on the page: what can be asked of its model, and what it answers.

Legend: C channels, H W pixels, L mask units.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maekit.app.decoding import View
from maekit.config.verbs import AppOptions
from maekit.engine.distributed import choose_device
from maekit.errors import MaekitError, ModelError
from maekit.inference import picture
from maekit.inference.classify import most_probable
from maekit.inference.one_pass import crop_share_of, require_finite
from maekit.inference.picture import Row
from maekit.inference.reconstruct import caption, drawn, rows
from maekit.masking import KINDS
from maekit.models.classifier import Classifier
from maekit.models.mae import MaskedAutoencoder
from maekit.targets import Statistics
from maekit.weights.load import load

_TOP = 5
Pixels = NDArray[np.uint8]


class Painted(NamedTuple):
    """A reconstruction as it is shown. masked, reconstruction, original: [H, W] or [H, W, 3] uint8; errors: the mean
    absolute difference of each patch, 0 to 255, [rows, columns]."""

    masked: Pixels
    reconstruction: Pixels
    original: Pixels
    errors: NDArray[np.float32]
    caption: str


class Exhibit:
    """name: W as it was given. model: in eval mode. painter: the same, where it can reconstruct; else why_not says why
    it cannot. whole, seen: how it sees what it reconstructs, and what it recognises."""

    def __init__(self, weights: str, options: AppOptions) -> None:
        self.name = str(weights)
        self.model = load(weights, options).to(choose_device(options.device)).eval()
        self.whole = View(self.model.config.channels, self.model.value_range, self.model.config.image_hw, 1.0)
        self.seen = replace(self.whole, crop_share=crop_share_of(self.model, options.crop_share))
        self.painter: MaskedAutoencoder | None = None
        self.why_not = ""
        if not isinstance(self.model, MaskedAutoencoder):
            kind = "a classifier" if isinstance(self.model, Classifier) else "an encoder alone"
            self.why_not = f"{self.name} holds {kind}: it has no decoder, so it paints nothing"
        elif not hasattr(self.model.objective.target, "paint"):
            self.why_not = f"{self.name} predicts {self.model.target.kind}, which cannot be shown"
        else:
            self.painter = self.model

    def describe(self) -> dict[str, Any]:
        """What the page has to know of it."""
        model = self.model
        said = {
            "name": self.name,
            "encoder": model.config.encoder,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "size": list(model.config.image_hw),
            "channels": model.config.channels,
            "planes": model.config.planes,
            "classes": len(model.classes) if isinstance(model, Classifier) else 0,
            "why_not": self.why_not,
            "mask": None,
        }
        if self.painter is not None:
            planes = self.painter.geometry.planes
            mask = self.painter.mask
            kinds = [kind for kind in ("random", "block", "grid", "one_in_2x2") if self._takes(kind)]
            said["mask"] = {
                "grid": [self.painter.grid[0] // planes, self.painter.grid[1]],
                "planes": planes,
                "kinds": kinds if mask.kind in KINDS else [mask.kind, *kinds],
                "paintable": self._takes("painted"),
                "kind": mask.kind,
                "ratio": mask.ratio,
                "normalised": self.painter.target.kind == "normalised",
            }
        return said

    def _takes(self, kind: str) -> bool:
        """Whether masks of that kind can be drawn for it, or painted ones be shown to it."""
        painter = self._painter()
        try:
            painter.check_mask(kind)
            if kind != "painted":
                self.draw(kind, painter.mask.ratio, 0)
        except MaekitError:
            return False
        return True

    def _painter(self) -> MaskedAutoencoder:
        if self.painter is None:
            raise ModelError(self.why_not)
        return self.painter

    def draw(self, kind: str, ratio: float, seed: int) -> Tensor:
        """A mask [L], of the ratio that is nearest to this one of those that the kind can hide."""
        painter = self._painter()
        painter.check_mask(kind)
        if kind == "one_in_2x2":
            ratio = 0.75
        elif kind == "grid":
            step = max(2, round((1 - ratio) ** -0.5))
            ratio = 1 - 1 / step**2
        return drawn(painter, 1, seed, replace(painter.mask, kind=kind, ratio=ratio))[0]

    def fitted(self, masked: Tensor, grid: Sequence[int], planes: int) -> Tensor:
        """A mask [L] of the page for this model's units. grid: rows and columns of the page's, one plane's."""
        painter = self._painter()
        own = (painter.grid[0] // painter.geometry.planes, painter.grid[1])
        if len(masked) != planes * grid[0] * grid[1]:
            raise ModelError(f"mask: {len(masked)} units are no {planes} x {grid[0]} x {grid[1]}")
        if (tuple(grid), planes) != (own, painter.geometry.planes):
            share = masked.reshape(planes, *grid).float().mean(dim=0).numpy()
            masked = torch.from_numpy(picture.at_grid(share, own).copy()).flatten().repeat(painter.geometry.planes)
        if masked.all() or not masked.any():
            raise ModelError(f"the mask hides {'everything' if masked.all() else 'nothing'}: hide some, show some")
        return masked

    def paint(self, image: Tensor, masked: Tensor, statistics: Statistics, bands: Sequence[int]) -> Painted:
        """image: [C, H, W] as `whole` shows it; masked: [L]; bands: the channels to show, where there are over 3."""
        row = self._row(image, masked, statistics)
        painter = self._painter()
        difference = np.abs(row.reconstruction.astype(np.float32) - row.original.astype(np.float32)).mean(axis=2)
        rows_, columns = painter.patch_grid[0] // painter.geometry.planes, painter.patch_grid[1]
        height, width = difference.shape
        errors = difference.reshape(rows_, height // rows_, columns, width // columns).mean(axis=(1, 3))
        hidden, reconstruction, original = (in_bands(pixels, bands) for pixels in row)
        return Painted(hidden, reconstruction, original, errors, caption(painter, statistics, image[None]))

    def picture(self, image: Tensor, masked: Tensor, statistics: Statistics) -> bytes:
        """The PNG that `maekit reconstruct` writes of it."""
        said = caption(self._painter(), statistics, image[None])
        return picture.png(picture.grid([self._row(image, masked, statistics)], caption=said))

    def _row(self, image: Tensor, masked: Tensor, statistics: Statistics) -> Row:
        return rows(self._painter(), image[None], masked[None], statistics=statistics)[0]

    def recognise(self, image: Tensor) -> list[dict[str, Any]]:
        """The most probable classes of an image as `seen` shows it: {label, probability}."""
        model = self.model
        if not isinstance(model, Classifier):
            raise ModelError(f"{self.name}: has no head, so it cannot classify; maekit finetune makes one")
        return most_probable(model, image[None], _TOP, self.name)[0]

    def pooled(self, images: Tensor) -> Tensor:
        """Features [N, D] of unit length, by whose products images are near."""
        features = self.model.features(images)
        require_finite(features, self.name)
        return torch.nn.functional.normalize(features, dim=1).cpu()


def in_bands(pixels: Pixels, bands: Sequence[int]) -> Pixels:
    """Pixels [H, W, C] as they are shown: grey of one channel, the mean of two, three as they are, else `bands`."""
    channels = pixels.shape[2]
    if channels <= 2:
        return pixels.mean(axis=2).round().astype(np.uint8)
    chosen = [*islice(bands, 3)] if channels > 3 and bands else [0, 1, 2]
    if len(chosen) != 3 or not all(0 <= band < channels for band in chosen):
        raise ModelError(f"channels {', '.join(map(str, chosen))}: take three of 0 to {channels - 1}")
    return np.ascontiguousarray(pixels[..., chosen])


def shown(image: Tensor, bands: Sequence[int]) -> Pixels:
    """An image [C, H, W] as the page shows it."""
    values = image if image.dtype == torch.uint8 else (image.clamp(0, 1) * 255).round().byte()
    return in_bands(values.permute(1, 2, 0).numpy(), bands)
