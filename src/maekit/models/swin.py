"""Swin encoders (timm's `swin_*` and `swinv2_*`), two ways; the encoder stays the native model either way.

*dense* (SimMIM, arXiv 2111.09886): a token replaces hidden patches after patch embedding and the whole grid passes the
native network. The mask unit is what one token of the last stage covers, 32 px.

*uniform* (UM-MAE, arXiv 2205.10063): one unit of 16 px stays visible in every 2x2 block of units. The visible units,
each in its block's place, make an image of half the height and width, and only that is embedded and passes the stages.
A unit is one token of the third stage, so the first three stages never mix pixels of different units but by attention.

- *Windows* are halved, and so are their shifts: half a window of packed tokens stands for the part of the image that
  the native window covers, and a window that is clamped to the whole grid stays the whole grid. Hence windows are even.
  UM-MAE does the same by training windows of 8 on packed images and fine-tuning windows of 16.
- *Relative positions* are true ones: two tokens' offset is that of the patches they came from, which differs from image
  to image. Tables keep their native size and are indexed with it. Where windows and shifts consist of whole 2x2 blocks
  (window 16 at 256 px), this makes the first three stages the native network with the hidden keys left out, and no
  offset is beyond the table. Elsewhere (a shift that cuts through units) some are, and take the outermost entry.
- In the *last stage* a token stands at the mean place of four units, in the native grid about two tokens from the next.
  Its biases are interpolated between a table's entries, so that all of them are trained and what whole images read
  later is the function that was trained; taking the nearest entry would train every second one in each direction.
- *Latents*: a token of the last stage saw a 2x2 of visible units. A linear layer of the adapter, patch merging the
  other way round (patch expanding, arXiv 2105.05537), makes four tokens of half the width of it, one a visible unit.
- *Secondary masking* replaces a share of the visible units by a token, after patch embedding.

Legend: N images, C channels, H W pixels, h w rows and columns of a grid of tokens, L mask units, V visible, D width.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn

from maekit.config import ModelConfig
from maekit.config.schema import size
from maekit.errors import ModelError
from maekit.models.family import Family, Latents, Shown
from maekit.models.packed_swin import Swin, stages
from maekit.patches import take, take_patches, unpatchify
from maekit.randomness import uniform_scores

_LARGEST_WINDOW = 16  # that an error message proposes; both papers' largest


class DenseAdapter(nn.Module):
    """The token that stands for hidden patches, N(0, .02): [1, D] of the first stage."""

    def __init__(self, encoder: Swin) -> None:
        super().__init__()
        self.token = nn.Parameter(trunc_normal_(torch.empty(1, encoder.layers[0].dim), std=0.02))


class UniformAdapter(nn.Module):
    """The token of secondary masking (None where nothing is replaced) and the layer that makes units of last tokens."""

    def __init__(self, encoder: Swin, secondary_ratio: float) -> None:
        super().__init__()
        self.secondary_ratio = secondary_ratio
        token = trunc_normal_(torch.empty(1, encoder.layers[0].dim), std=0.02) if secondary_ratio else None
        self.token = None if token is None else nn.Parameter(token)
        self.expand = nn.Linear(encoder.num_features, 2 * encoder.num_features)
        nn.init.xavier_uniform_(self.expand.weight)
        nn.init.zeros_(self.expand.bias)

    def replaced(self, keys: Tensor, visible: int) -> Tensor:
        """Which visible units the token replaces: keys [N] → bool [N, V], equally many in each image, at least one."""
        count = max(1, int(visible * self.secondary_ratio))
        return uniform_scores(keys, visible).argsort(dim=1).argsort(dim=1) < count

    def units(self, tokens: Tensor) -> Tensor:
        """tokens [N, h, w, D] → [N, V, D / 2], the 2h x 2w visible units in raster order of their blocks."""
        return self.expand(tokens).unflatten(3, (2, 2, -1)).transpose(2, 3).flatten(1, 4)


class _Swin(Family):
    name = "swin"
    options = frozenset({"patch_size", "width", "window", "swin_method", "secondary_ratio"})
    norm_before_mean = True

    def mask_kinds(self, config: ModelConfig) -> frozenset[str]:
        return self.masks if self.dense(config) else frozenset({"one_in_2x2"})

    def build(self, config: ModelConfig, *, drop_path: float = 0.0, masked: bool = False) -> Swin:
        """See `Family.build`. Initialised as arXiv 2103.14030's released code does, which is timm's default."""
        encoder: Swin = self.create(config, drop_path_rate=drop_path)
        if self.dense(config) and config.changed("secondary_ratio"):
            raise ModelError("model.secondary_ratio: swin_method dense has no secondary masking; leave it out")
        if config.decoder.feature_maps:
            raise ModelError("model.decoder.feature_maps: a Swin's blocks have no common width; leave it at 0")
        for stage in encoder.layers:
            heads = stage.blocks[0].attn.num_heads
            if stage.blocks[0].dim % heads:
                raise ModelError(f"model.width: {config.width} is not a multiple of the encoder's {heads} heads")
        _check_image(encoder, config, packed=masked and not self.dense(config))
        return encoder

    def adapter(self, encoder: Swin, config: ModelConfig) -> nn.Module:
        return DenseAdapter(encoder) if self.dense(config) else UniformAdapter(encoder, config.secondary_ratio)

    def unit(self, encoder: Swin, config: ModelConfig) -> tuple[int, int]:
        return _unit(encoder, dense=self.dense(config))

    def latent_width(self, encoder: nn.Module, config: ModelConfig) -> int:
        width = super().latent_width(encoder, config)
        return width if self.dense(config) else width // 2

    def dense(self, config: ModelConfig) -> bool:
        return config.swin_method == "dense"

    def untrained(self, encoder: Swin, config: ModelConfig) -> str | None:
        """See `Family.untrained`. A token that is alone in its window has nobody to weigh, and gives no gradient."""
        window = encoder.layers[-1].blocks[0].window_size
        if self.dense(config) or min(window) // 2 > 1:
            return None
        patch, least = max(encoder.patch_embed.patch_size), 4
        change = f"a --model.window of {least} or more"
        if _windows(config, patch)[-1] >= least:
            change = f"a larger --image-size, such as {_larger(encoder, config, least)}"
        height, width = config.image_hw
        at = f"at {height}x{width} px"
        if max(window) // 2 > 1:
            return (
                f"the packed last stage has one row of tokens a window {at}: two of its position biases (offset by one "
                f"across the row) are not trained and stay as they began; take {change}"
            )
        return (
            f"the packed last stage has one token a window {at}: its position biases, queries and keys are not trained "
            f"and stay as they began; take {change}"
        )

    def encode_visible(self, encoder: Swin, adapter: nn.Module, shown: Shown) -> Latents:
        """See `Family.encode_visible`. uniform: of masks with one visible unit in every 2x2 block only."""
        if isinstance(adapter, UniformAdapter):
            return _encode_uniform(encoder, adapter, shown)
        assert isinstance(adapter, DenseAdapter)
        tokens = encoder.patch_embed(shown.images)
        hidden = _spread(shown.masked, tokens.shape[1:3], len(encoder.layers) - 1)
        tokens = torch.where(hidden, adapter.token.to(tokens.dtype), tokens)
        return Latents(encoder.norm(encoder.layers(tokens)).flatten(1, 2))

    def replaced(self, adapter: nn.Module, visible: Tensor, keys: Tensor) -> Tensor | None:
        if isinstance(adapter, UniformAdapter) and adapter.token is not None:
            return adapter.replaced(keys, visible.shape[1])
        return None

    def encode(self, encoder: Swin, images: Tensor, *, blocks: int = 1) -> Latents:
        """See `Family.encode`. Blocks of one width are those of the last stage."""
        if blocks == 1:
            return Latents(encoder.forward_features(images).flatten(1, 2))
        *earlier, last = encoder.layers
        if blocks > len(last.blocks):
            raise ModelError(f"features of the last {blocks} blocks: only {len(last.blocks)} have the last one's width")
        tokens = encoder.patch_embed(images)
        for stage in earlier:
            tokens = stage(tokens)
        tokens, outputs = last.downsample(tokens), []
        for block in last.blocks:
            tokens = block(tokens)
            outputs.append(encoder.norm(tokens))
        return Latents(torch.stack(outputs[-blocks:]).mean(dim=0).flatten(1, 2))


SWIN = _Swin()


def _unit(encoder: Swin, *, dense: bool) -> tuple[int, int]:
    merges = len(encoder.layers) - (1 if dense else 2)
    height, width = encoder.patch_embed.patch_size
    return height << merges, width << merges


def _check_image(encoder: Swin, config: ModelConfig, *, packed: bool) -> None:
    """Raises ModelError, with sizes that work, where units or windows do not divide a side of the image."""
    for axis, (side, unit) in enumerate(zip(config.image_hw, _unit(encoder, dense=not packed), strict=True)):
        patch = encoder.patch_embed.patch_size[axis]
        fit = _Fit(4 * unit if packed else unit, patch, even=packed)
        if fit.takes(side, [stage.blocks[0].window_size[axis] for stage in encoder.layers]):
            continue
        name, windows = ("height", "width")[axis], _windows(config, patch)
        sizes = "/".join(map(str, sorted(set(windows))))
        encoder_name = f"{config.encoder} (uniform)" if packed else config.encoder
        raise ModelError(
            f"model.image_size: {encoder_name} takes no {name} of {side} px with windows of {sizes} patches; "
            f"take {fit.nearest(side, windows)}"
        )


def _windows(config: ModelConfig, patch: int) -> list[int]:
    """Each stage's window as the name and the config have it, not clamped to the grid of an image."""
    large = patch * 8 * max(64, config.window or 0)
    with torch.device("meta"):
        return [stage.blocks[0].window_size[0] for stage in SWIN.create(replace(config, image_size=large)).layers]


def nearest_window(config: ModelConfig) -> int | None:
    """The window, of two patches or more, that divides whole images of the config's size at every stage.

    Of several the nearest to the config's or the name's own, of two as near the larger; None where there is none.
    """
    patch = (4, 4) if config.patch_size is None else size(config.patch_size)  # timm's of every name
    own = _windows(config, patch[0])
    fits = [_Fit(side << len(own) - 1, side, even=False) for side in patch]
    fitting = [
        window
        for window in range(2, 2 * _LARGEST_WINDOW + 1)
        if all(fit.takes(length, [window] * len(own)) for fit, length in zip(fits, config.image_hw, strict=True))
    ]
    return min(fitting, key=lambda window: (abs(window - own[-1]), -window), default=None)


class _Fit:
    """Sides of an image, multiples of `step`, that the windows of all stages divide."""

    def __init__(self, step: int, patch: int, *, even: bool) -> None:
        self.step, self.patch, self.even = step, patch, even

    def takes(self, side: int, windows: Sequence[int]) -> bool:
        """windows: one a stage; as in timm, one that is larger than the grid is clamped to it."""
        if side % self.step:
            return False
        grids = [side // self.patch >> stage for stage in range(len(windows))]
        clamped = [min(window, grid) for window, grid in zip(windows, grids, strict=True)]
        if self.even and any(window % 2 for window in clamped):
            return False
        return not any(grid % window for grid, window in zip(grids, clamped, strict=True))

    def nearest(self, side: int, windows: Sequence[int]) -> str:
        """The nearest smaller and larger side that work, or, where none do, sides with a window that does."""
        multiples = range(self.step, 4 * max(side, self.step) + 1, self.step)
        sides = [s for s in multiples if self.takes(s, windows)]
        smaller, larger = [s for s in sides if s < side][-1:], [s for s in sides if s > side][:1]
        if sides:
            return " or ".join(map(str, smaller + larger))
        around = {max(self.step, side // self.step * self.step), -(-side // self.step) * self.step}
        fitting = {s: self.window(s, len(windows)) for s in sorted(around)}
        return " or ".join(f"{s} with model.window {window}" for s, window in fitting.items())

    def window(self, side: int, stages: int) -> int:
        return max(w for w in range(1, _LARGEST_WINDOW + 1) if self.takes(side, [w] * stages))


def _larger(encoder: Swin, config: ModelConfig, tokens: int) -> str:
    """The smallest square image that can be packed and has so many tokens a side in the last stage, unpacked."""
    patch, stages = max(encoder.patch_embed.patch_size), len(encoder.layers)
    step = 4 * max(_unit(encoder, dense=False))
    fit, windows = _Fit(step, patch, even=True), _windows(config, patch)
    least = max(tokens * patch << stages - 1, max(config.image_hw))
    sides = range(-(-least // step) * step, 4 * least + step, step)
    fitting = next((side for side in sides if fit.takes(side, windows)), None)
    return str(fitting) if fitting else f"{sides[0]} with --model.window {fit.window(sides[0], stages)}"


def _spread(units: Tensor, grid: Sequence[int], merges: int) -> Tensor:
    """Units [N, L] as patches [N, h, w, 1]: each unit is a square of patches, two to the `merges` a side."""
    unit_rows, unit_columns = grid[0] >> merges, grid[1] >> merges
    squares = units.view(-1, unit_rows, 1, unit_columns, 1).expand(-1, -1, 1 << merges, -1, 1 << merges)
    return squares.reshape(-1, grid[0], grid[1], 1)


def _encode_uniform(encoder: Swin, adapter: UniformAdapter, shown: Shown) -> Latents:
    images, visible, replaced = shown.images, shown.visible, shown.replaced
    unit, embed = _unit(encoder, dense=False), encoder.patch_embed
    rows, columns = images.shape[2] // unit[0], images.shape[3] // unit[1]
    if 4 * visible.shape[1] != rows * columns:
        raise ModelError(f"mask: a Swin packed by swin_method uniform sees one unit in 2x2, not {visible.shape[1]}")
    blocks = visible // columns // 2 * (columns // 2) + visible % columns // 2
    packed = torch.zeros_like(visible).scatter(1, blocks, visible)  # the units in raster order of their blocks
    tokens = embed.norm(embed.proj(_pack(images, unit, packed)).permute(0, 2, 3, 1))
    if adapter.token is not None and replaced is not None:
        hidden_too = _spread(replaced, tokens.shape[1:3], len(encoder.layers) - 2)
        tokens = torch.where(hidden_too, adapter.token.to(tokens.dtype), tokens)
    places = torch.stack(
        torch.meshgrid(*(torch.arange(s, device=images.device) for s in embed.grid_size), indexing="ij")
    )
    unit_patches = unit[0] // embed.patch_size[0], unit[1] // embed.patch_size[1]
    places = _pack(places.float().expand(len(images), -1, -1, -1), unit_patches, packed)
    tokens = encoder.norm(stages(encoder, tokens, places))
    return Latents(take(adapter.units(tokens), blocks), index=visible)


def _pack(images: Tensor, unit: tuple[int, int], packed: Tensor) -> Tensor:
    """images [N, C, H, W], packed [N, V] units in raster order of their 2x2 blocks → [N, C, H / 2, W / 2]."""
    half = images.shape[2] // unit[0] // 2, images.shape[3] // unit[1] // 2
    return unpatchify(take_patches(images, unit, packed), unit, half)
