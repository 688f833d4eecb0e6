"""A frozen encoder as a scikit-learn transformer, for pipelines and searches.

Legend: N images, H W pixels, C channels, D feature width.
"""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array

from maekit.data.arrays import Pixels
from maekit.data.decode import Range, decode
from maekit.data.loader import stack
from maekit.data.sources.source import read_file
from maekit.data.transforms import EvalTransform
from maekit.engine.distributed import choose_device
from maekit.errors import DataError, ImageError
from maekit.inference.one_pass import crop_share_of
from maekit.models.encoder import ImageEncoder
from maekit.weights.find import find
from maekit.weights.load import load


class InputError(DataError, ValueError):
    """Parameters or images that cannot be meant or read; a ValueError too, as scikit-learn has it."""


class Embedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Images to the features that `maekit embed` writes.

    weights: W. tokens: "pooled" or "class". blocks: mean over the outputs of so many last blocks. batch_size: images a
    pass. device: auto, cpu, cuda, cuda:N, mps. crop_share: the shorter side is resized to image size / this, then the
    centre is taken; None: as W was validated; 1: whole images. value_range: the values of X that are black and white;
    None: W's own, else all that their type can hold (floating point: 0 to 1).

    X: paths of N image files; numbers [N, H, W], [N, H, W, C] or [N, C, H, W] of any size; or rows [N, H*W*C] of images
    [H, W, C] of W's own size. Nothing is learned: `fit` looks at X and the parameters. W is read when it is first
    needed, once a process, for the clones of a search too; a pickle holds the parameters alone. Raises InputError, a
    ValueError, for what cannot be meant or read, and WeightsError for W.
    """

    def __init__(
        self,
        weights: str | Path = "",
        tokens: Literal["pooled", "class"] = "pooled",
        blocks: int = 1,
        batch_size: int = 64,
        device: str = "auto",
        *,
        crop_share: float | None = None,
        value_range: Range | None = None,
    ) -> None:
        self.weights, self.tokens, self.blocks = weights, tokens, blocks
        self.batch_size, self.device = batch_size, device
        self.crop_share, self.value_range = crop_share, value_range

    def fit(self, X: Any, y: object = None) -> "Embedder":  # noqa: ARG002 - scikit-learn's signature
        """Look at X and the parameters, and learn nothing."""
        if self.tokens not in ("pooled", "class") or min(self.blocks, self.batch_size) < 1:
            wrong = f"not {self.tokens!r}, {self.blocks!r} and {self.batch_size!r}"
            raise InputError(f"tokens is pooled or class, blocks and batch_size are 1 or more: {wrong}")
        images = _images(X, self._model)
        if images.ndim > 1:
            self.n_features_in_ = int(np.prod(images.shape[1:]))
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Features [N, D]."""
        model = self._model
        images, parts = _images(X, model), []
        view = EvalTransform(model.config.image_hw, crop_share_of(model, self.crop_share))
        for start in range(0, len(images), self.batch_size):
            some = images[start : start + self.batch_size]
            batch = [view(_decoded(image, model, self.value_range or model.value_range)) for image in some]
            parts.append(model.features(stack(batch), self.tokens, blocks=self.blocks).cpu())
        return torch.cat(parts).numpy()

    @property
    def _model(self) -> ImageEncoder:
        file = find(self.weights)
        return _loaded(file, file.stat().st_mtime_ns, self.device)

    @property
    def _n_features_out(self) -> int:
        return self._model.width

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit, tags.input_tags.three_d_array, tags.input_tags.string = False, True, True
        tags.transformer_tags.preserves_dtype = []  # features are float32
        return tags


@lru_cache(maxsize=2)
def _loaded(file: Path, _written: int, device: str) -> ImageEncoder:
    return load(file, decoder=False).to(choose_device(device))


def _images(X: Any, model: ImageEncoder) -> Pixels:
    """Paths [N], or numbers [N, H, W] or [N, H, W, C]. Raises InputError where an axis would have to be guessed."""
    values: Pixels = check_array(X, dtype=None, ensure_2d=False, allow_nd=True)
    if isinstance(next(values.flat), str | os.PathLike):
        return values.reshape(-1)
    values = check_array(values, ensure_2d=False, allow_nd=True)  # objects become numbers, or a TypeError
    channels, (height, width), shape = model.config.channels, model.config.image_hw, values.shape
    if values.ndim == 2 and shape[1] == height * width * channels:
        return values.reshape(-1, height, width, channels)
    if values.ndim == 2:
        raise InputError(
            f"X has {shape[1]} features, but Embedder is expecting {height * width * channels} features as input: rows "
            f"of images of {height}x{width}x{channels}; of other sizes take [N, H, W, C] or paths"
        )
    if values.ndim == 3 and channels in (1, 3):
        return values
    first = values.ndim == 4 and shape[1] == channels
    last = values.ndim == 4 and (shape[3] == channels or (shape[3], channels) == (1, 3))
    if first == last:
        why = "either may be the channels: take rows or paths" if first else "Reshape your data, or take other weights"
        raise InputError(
            f"X: shape {list(shape)} where weights for {channels} channels see [N, H, W, C] or [N, C, H, W]; {why}"
        )
    return values.transpose(0, 2, 3, 1) if first else values


def _decoded(image: Pixels | str | Path, model: ImageEncoder, value_range: Range | None) -> torch.Tensor:
    try:
        data = image if isinstance(image, np.ndarray) else read_file(Path(image))
        return decode(data, model.config.channels, value_range=value_range)
    except ImageError as error:
        reason = str(error).replace("--data.range LOW HIGH, or --data.range measured", "value_range=(LOW, HIGH)")
        raise InputError(f"{'X' if isinstance(image, np.ndarray) else image}: {reason}") from None
