"""An encoder with what is needed to use it: its config, its family, and how its images are standardised."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, get_args

import torch
from torch import Tensor, nn

from maekit.config import ModelConfig
from maekit.errors import ModelError
from maekit.models.family import Family, family_of, features
from maekit.models.family import Features as Kind
from maekit.models.standardise import Standardise

_BEYOND = 0.5  # of [0, 1]: more than resampling leaves


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode for a while; each module goes back to the mode it was in."""
    training = [module for module in model.modules() if module.training]
    if training:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


class ImageEncoder(nn.Module):
    """A native timm encoder (`encoder`) that knows its images: what weights without decoder and head become.

    Attributes a user may rely on: `encoder`, `config`, `family`, `standardise`, `width` (D of the features), and
    `crop_share`, with which it was validated (the shorter side resized to image size / this, then the centre taken),
    None where that is not known; `value_range`, the stored values that were black and white to it, None for all that a
    file's type can hold.
    Raises ModelError where the sizes in the config do not fit each other.
    """

    masked: ClassVar[bool] = False
    """Whether the encoder has to take images that are partly hidden, too."""

    def __init__(
        self, config: ModelConfig, *, mean: tuple[float, ...], std: tuple[float, ...], drop_path: float = 0.0
    ) -> None:
        super().__init__()
        if len(mean) != config.channels:
            raise ModelError(f"mean and std: {len(mean)} values for images of {config.channels} channels")
        self.config: ModelConfig = config
        self.family: Family = family_of(config.encoder)
        self.encoder: nn.Module = self.family.build(config, drop_path=drop_path, masked=self.masked)
        self.standardise: Standardise = Standardise(mean, std)
        self.crop_share: float | None = None
        self.value_range: tuple[float, float] | None = None

    @torch.no_grad()
    def features(self, images: Tensor, kind: Kind = "pooled", *, blocks: int = 1) -> Tensor:
        """Frozen features of whole images: what `maekit embed` writes and probes judge.

        images: [N, C, H, W] float in [0, 1] (or uint8), on any device; they are standardised here. pooled: [N, D], the
        mean of the patch tokens after the final norm; class: [N, D], the class token after it; patches: [N, T, D].
        blocks: mean over the outputs of so many last blocks. float32, on the model's device, without gradient (to train
        on tokens, call `encoder` with standardised images). In eval mode, whatever mode the model is in. Raises
        ModelError where images do not fit the model, or a class token is asked of an encoder that has none.
        """
        self.check_images(images)
        _check_values(images)
        if kind not in get_args(Kind):
            raise ModelError(f"features: no such kind {kind!r}, there are {', '.join(get_args(Kind))}")
        with eval_mode(self):
            return self._features(self.standardise(images.to(self.device, non_blocking=True)), kind, blocks).float()

    def _features(self, images: Tensor, kind: Kind, blocks: int) -> Tensor:
        return features(self.encoder, images, kind, blocks=blocks, family=self.family)

    def check_images(self, images: Tensor) -> None:
        """Raises ModelError where images are not [N, C, H, W] of the model's own channels and size."""
        expected = (self.config.channels, *self.config.image_hw)
        if not isinstance(images, Tensor):
            raise ModelError(f"images: a tensor [N, {', '.join(map(str, expected))}], not a {type(images).__name__}")
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ModelError(f"images: the model takes [N, {', '.join(map(str, expected))}], not {list(images.shape)}")

    def recompute_activations(self, enabled: bool = True) -> None:
        """Trade time for memory: activations of blocks are computed again in the backward pass."""
        self.encoder.set_grad_checkpointing(enabled)  # type: ignore[operator]

    @property
    def width(self) -> int:
        """D of the features."""
        return int(self.encoder.num_features)  # type: ignore[arg-type]

    @property
    def device(self) -> torch.device:
        return self.standardise.mean.device


def _check_values(images: Tensor) -> None:
    """Raises ModelError for images that are standardised already, or go to 255; on a device they are not looked at."""
    if images.is_floating_point() and images.device.type == "cpu" and images.numel():
        low, high = (float(value) for value in images.aminmax())
        if low < -_BEYOND or high > 1 + _BEYOND:
            raise ModelError(
                f"images: float values from {low:.3g} to {high:.3g}; they have to be in [0, 1], not standardised, or "
                "uint8"
            )
