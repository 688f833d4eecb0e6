"""The masked autoencoder: an encoder that sees the visible patches, a decoder that paints the hidden ones.

Legend: N images, C channels, H W pixels, L mask units, Q predicted patches, P values of a patch.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Self

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from maekit import objective
from maekit.config import MaskConfig, ModelConfig, TargetConfig
from maekit.errors import ModelError
from maekit.masking import KINDS as MASKS
from maekit.masking import choose
from maekit.models import decoder
from maekit.models.encoder import ImageEncoder
from maekit.models.family import Shown, grid_of
from maekit.patches import refine, split
from maekit.randomness import keys_tensor
from maekit.targets import Geometry

_STREAM_PREDICTED, _STREAM_ENCODER = 1, 2  # draws beside the mask's own, from the same key


@dataclass(frozen=True)
class Prediction:
    """patches: [N, Q, P] in the target's terms. index: [N, Q] int64, which patches, ascending."""

    patches: Tensor
    index: Tensor


@dataclass(frozen=True)
class Draws:
    """What chance decides for a batch before the model sees it.

    visible: [N, V] int64 and predicted: [N, Q] int64, the numbers of the patches, each ascending. replaced: bool
    [N, V], which visible ones the encoder sees a token instead of; None where it sees them all.
    """

    visible: Tensor
    predicted: Tensor
    replaced: Tensor | None = None


class MaskedAutoencoder(ImageEncoder):
    """Masked autoencoder of arXiv 2111.06377 over a native timm encoder.

    Attributes a user may rely on beside those of `ImageEncoder`: `decoder`, `unit` (height, width of a mask unit in
    pixels), `grid` (rows, columns of units; with channel tokens the rows of all channels, one channel below the other),
    `patch` and `patch_grid` (the same of what one prediction covers, a unit or a part of it), `geometry` (of the
    patches), `objective`, and `target` and `mask`, the configs it is made of.
    Raises ModelError where the sizes in the config do not fit each other, or a mask is not the family's.
    """

    masked = True
    __call__: Callable[..., Prediction]  # typed, which torch's is not

    def __init__(
        self,
        config: ModelConfig,
        target: TargetConfig,
        mask: MaskConfig,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__(config, mean=mean, std=std)
        self.target, self.mask = target, mask
        self.others: dict[tuple[int, int], MaskedAutoencoder] = {}
        self.unit: tuple[int, int] = self.family.unit(self.encoder, config)
        self.grid: tuple[int, int] = grid_of(self.family, self.encoder, config)
        self.parts = self.family.parts(config)
        self.patch: tuple[int, int] = self.unit[0] // self.parts, self.unit[1] // self.parts
        self.patch_grid: tuple[int, int] = self.grid[0] * self.parts, self.grid[1] * self.parts
        self.adapter = self.family.adapter(self.encoder, config)
        self.check_mask(mask.kind)
        channels, height, width = config.seen
        self.geometry = Geometry((height, width), self.patch, self.patch_grid, channels, mean, std, config.planes)
        self.objective = objective.build(mask, target, self.grid, self.geometry)
        if (config.decoder.kind == "linear") != self.family.dense(config):
            fits = "linear" if self.family.dense(config) else "self or cross"
            raise ModelError(f"model.decoder.kind: this encoder needs {fits}, not {config.decoder.kind}")
        self.decoder: nn.Module = decoder.build(
            config.decoder,
            encoder_width=self.family.latent_width(self.encoder, config),
            encoder_depth=len(getattr(self.encoder, "blocks", ())),
            prefix=int(getattr(self.encoder, "num_prefix_tokens", 0)),
            geometry=self.geometry,
            predicts=self.objective.target.width,
        )

    def forward(
        self, images: Tensor, masked: Tensor, *, hidden: int | None = None, keys: Tensor | None = None
    ) -> Prediction:
        """Predict hidden patches.

        images: [N, C, H, W] standardised. masked: bool [N, L], True = hidden. hidden: how many units a row hides, where
        known (else it is counted, which waits for the device). keys: int64 [N], as in training: a cross decoder then
        predicts its share of the hidden patches, a Swin draws its secondary mask; None predicts all, draws nothing.
        """
        self.check(images, masked)
        return self.predict(images, masked, self.draw(masked, hidden=hidden, keys=keys))

    def draw(self, masked: Tensor, *, hidden: int | None = None, keys: Tensor | None = None) -> Draws:
        """What `forward` draws by its keys, and where its mask shows and hides; arguments are those of `forward`."""
        visible, predicted = split(masked, hidden)
        if self.parts > 1:
            fine = refine(masked, self.grid, self.parts)
            predicted = split(fine, predicted.shape[1] * self.parts**2)[1]
        if keys is None:
            return Draws(visible, predicted)
        if self.config.decoder.predicted_share < 1:
            count = max(1, round(predicted.shape[1] * self.config.decoder.predicted_share))
            predicted = choose(predicted, count, keys_tensor(keys, _STREAM_PREDICTED))
        replaced = self.family.replaced(self.adapter, visible, keys_tensor(keys, _STREAM_ENCODER))
        return Draws(visible, predicted, replaced)

    def predict(self, images: Tensor, masked: Tensor, draws: Draws) -> Prediction:
        """`forward` where all is drawn: a function of its arguments alone, which compilers can take whole."""
        self.check(images, masked)
        shown = Shown(images, masked, draws.visible, getattr(self.decoder, "maps", ()), draws.replaced)
        latents = self.family.encode_visible(self.encoder, self.adapter, shown)
        return Prediction(self.decoder(latents, draws.predicted), draws.predicted)

    @torch.no_grad()
    def visible_features(self, images: Tensor, masked: Tensor) -> Tensor:
        """Mean of the tokens of what a mask shows: [N, D] float32.

        images: [N, C, H, W] standardised. masked: bool [N, L], True = hidden. D is the width of the latents, which in a
        uniform Swin is not that of `features`.
        """
        self.check(images, masked)
        shown = Shown(images, masked, split(masked)[0])
        return self.family.encode_visible(self.encoder, self.adapter, shown).patches.mean(dim=1).float()

    def also_at(self, image_hw: tuple[int, int]) -> None:
        """Learn from images of another size too, by a model in `others` that trains the parameters of this one.

        Its fixed positions are these, resampled to its grid; mask and target are of its grid. Raises ModelError where
        the size does not fit, or a parameter is trained that is of one size, as learned positions are.
        """
        config = replace(self.config, image_size=image_hw)
        other = self.others[image_hw] = build(config, self.target, self.mask, *self.standardise.values(), seed=0)
        for name, parameter in self.named_parameters():
            module, _, key = name.rpartition(".")
            owner = other.get_submodule(module)
            if getattr(owner, key).shape == parameter.shape:
                setattr(owner, key, parameter)
                continue
            if parameter.requires_grad:
                raise ModelError(f"schedule.resolutions: {name} is trained for one size; only fixed positions follow")
            grids, prefix = (other.patch_grid, self.patch_grid), parameter.shape[1] - prod(self.patch_grid)
            table = resample_abs_pos_embed(parameter, *map(list, grids), num_prefix_tokens=prefix)
            setattr(owner, key, nn.Parameter(table, requires_grad=False))

    def at(self, images: Tensor) -> "MaskedAutoencoder":
        """The model for images of this size: itself, or one of `others`."""
        return self.others.get((images.shape[2], images.shape[3]), self)

    def check(self, images: Tensor, masked: Tensor) -> None:
        """Raises ModelError where images or mask have not the model's shapes."""
        self.check_images(images)
        units = self.grid[0] * self.grid[1]
        if tuple(masked.shape) != (len(images), units):
            raise ModelError(f"mask: must be [{len(images)}, {units}] for these images, not {list(masked.shape)}")

    def check_mask(self, kind: str) -> None:
        """Raises ModelError where the encoder cannot take this kind of mask ("painted": any with equal counts).

        A user's own kind is one that only those take which take any.
        """
        takes = self.family.mask_kinds(self.config)
        if kind not in takes and not ("painted" in takes and kind not in MASKS):
            raise ModelError(f"mask.kind {kind}: {self.config.encoder} takes {', '.join(sorted(takes))}")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Modules of the target and `others` go along to other devices; they are no part of the model, its weights."""
        for other in (self.objective.target, *self.others.values()):
            if isinstance(other, nn.Module):
                other._apply(fn)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def recompute_activations(self, enabled: bool = True) -> None:
        super().recompute_activations(enabled)
        for other in self.others.values():
            other.recompute_activations(enabled)
        if hasattr(self.decoder, "grad_checkpointing"):
            self.decoder.grad_checkpointing = enabled  # type: ignore[assignment]


def build(
    config: ModelConfig,
    target: TargetConfig,
    mask: MaskConfig,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    seed: int,
) -> MaskedAutoencoder:
    """An untrained model, initial weights fixed by the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MaskedAutoencoder(config, target, mask, mean=mean, std=std)
