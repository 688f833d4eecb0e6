"""What a masked autoencoder paints where it sees nothing.

Legend: N images, C channels, H W pixels, L patches, V visible, Q hidden, P values of a patch.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maekit import masking, patches
from maekit.config import MaskConfig
from maekit.config.verbs import ReconstructOptions
from maekit.data.decode import decode
from maekit.data.loader import stack
from maekit.data.sources import Space, open_images, open_source
from maekit.data.sources.elsewhere import some_of
from maekit.data.transforms import EvalTransform
from maekit.engine.distributed import choose_device
from maekit.errors import DataError, ImageError, ModelError, UsageError
from maekit.inference import picture
from maekit.inference.one_pass import is_image_file
from maekit.models.mae import MaskedAutoencoder
from maekit.randomness import keys_tensor
from maekit.results import Reconstructed
from maekit.sections import Picture, Text
from maekit.targets import Statistics
from maekit.weights.load import reconstructor

_ROWS = 6
_DARK = 0.5  # of the range; pictures that use less are stretched

_CAPTIONS = {
    "own": "Hidden patches as the target paints what was predicted, visible ones as they are.",
    "raw": "Hidden patches as predicted, visible ones as they are.",
    "visible": "This model predicts normalised patches: each hidden patch's mean and contrast here are estimated from "
    "its visible neighbours. Nothing of the hidden pixels is used.",
    "original": "This model predicts normalised patches: each hidden patch's mean and contrast here come from the "
    "original. That is a leak: brightness and colour of hidden patches were not predicted.",
}


@torch.no_grad()
def reconstruct(
    model: MaskedAutoencoder, images: Tensor, masked: Tensor, *, statistics: Statistics = "visible"
) -> Tensor:
    """Images with their hidden patches painted by the model.

    images: [N, C, H, W] float in [0, 1] (or uint8). masked: bool [N, L], True = hidden, as many in each image.
    statistics: for models that predict normalised pixels, where each hidden patch's mean and spread come from:
    "visible", its visible neighbours by inverse squared distance; "original", the hidden pixels themselves, a leak.
    Returns [N, C, H, W] float in [0, 1]. Raises ModelError where shapes or the mask do not fit the model.
    """
    model.check(images, masked)
    paint = getattr(model.objective.target, "paint", None)
    if paint is None:
        raise ModelError(
            f"this model predicts {model.target.kind}, which has no method `paint`: what it predicts cannot be shown"
        )
    images = images.to(model.device)
    standardised = model.geometry.seen(model.standardise(images))
    masked = masked.to(model.device)
    prediction = model(standardised.reshape(images.shape), masked)
    fine = patches.refine(masked, model.grid, model.parts)
    painted = paint(prediction.patches.float(), standardised, fine, prediction.index, statistics)
    whole = patches.patchify(standardised, model.patch)
    whole = whole.scatter(1, prediction.index[:, :, None].expand_as(painted), painted)
    return model.standardise.inverse(patches.unpatchify(whole, model.patch, model.patch_grid).reshape(images.shape))


def rows(
    model: MaskedAutoencoder, images: Tensor, masked: Tensor, *, statistics: Statistics = "visible"
) -> list[picture.Row]:
    """masked | reconstruction | original of images [N, C, H, W] uint8 or float in [0, 1].

    Images of more than 8 bits that use less than half of their range are stretched, as `caption` says.
    """
    shown = _display_range(images)
    painted = _bytes(reconstruct(model, images, masked, statistics=statistics), shown)
    originals = _bytes(images.float() / 255 if images.dtype == torch.uint8 else images, shown)
    planes = masked.cpu().numpy().reshape(len(masked), model.geometry.planes, -1, model.grid[1])
    units = np.moveaxis(planes, 1, 3)
    return [
        picture.Row(picture.masked_panel(original, hidden), reconstruction, original)
        for original, hidden, reconstruction in zip(originals, units, painted, strict=True)
    ]


def caption(model: MaskedAutoencoder, statistics: Statistics, images: Tensor | None = None) -> str:
    """What a picture of reconstructions must say about itself. images: those in it, as `rows` was given them."""
    said = _CAPTIONS.get(statistics if model.target.kind == "normalised" else model.target.kind, _CAPTIONS["own"])
    shown = None if images is None else _display_range(images)
    if shown is None:
        return said
    return f"{said} Stretched for display: {shown[0]:.3g} to {shown[1]:.3g} of 1 are shown as black to white."


def _display_range(images: Tensor) -> tuple[float, float] | None:
    """What to show as black and white where images in [0, 1] use less than half of it; None where they do not.

    A thousandth of the values at either end may lie beyond. Bytes are shown as they are.
    """
    if not images.is_floating_point():
        return None
    values = images.cpu().numpy().ravel()
    low, high = map(float, np.percentile(values[:: max(1, len(values) // 100_000)], (0.1, 99.9)))
    return (low, high) if 0 < high - low < _DARK else None


def _bytes(images: Tensor, shown: tuple[float, float] | None) -> list[NDArray[np.uint8]]:
    if shown is not None:
        images = (images.float() - shown[0]) / (shown[1] - shown[0])
    pixels = (images.float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return list(pixels)


def reconstruct_files(options: ReconstructOptions) -> Reconstructed:
    """`maekit reconstruct`: write one picture with a row for each image file."""
    out = Path(options.out)
    if options.rows is not None and all(map(is_image_file, options.images)):
        raise UsageError("--rows: image files are all shown; it belongs to a SOURCE")
    picture.check_writable(out)
    model = reconstructor(options.weights, options).to(choose_device(options.device))
    if options.statistics == "original" and model.target.kind == "raw":
        raise UsageError(f"--statistics: {options.weights} predicts pixels as they are, which need none; leave it out")
    images = stack([image for text in options.images for image in _read(text, model, options)])
    masked = _masks(model, len(images), options)
    pictured = rows(model, images, masked, statistics=options.statistics)
    shown = picture.grid(pictured, caption=caption(model, options.statistics, images))
    picture.save(shown, out)
    said = f"{out}: {len(images)} images, {int(masked[0].sum())} of {masked.shape[1]} patches hidden"
    share = float(masked.float().mean())
    return Reconstructed(out=str(out), images=len(images), masked=share, sections=[Text(said), Picture(shown, "")])


def _read(text: str, model: MaskedAutoencoder, options: ReconstructOptions) -> list[Tensor]:
    """An image file, or some images of a source, as the model takes them: resized, the centre taken."""
    space = Space.within(options.cache_limit)
    is_one = is_image_file(text)
    source = open_images([Path(text).expanduser()]) if is_one else open_source(text, options.image_column, space)
    transform = EvalTransform(model.config.image_hw, 1.0)
    images = []
    for index in some_of(source, options.rows or _ROWS).tolist():
        try:
            images.append(transform(decode(source.read(index), model.config.channels, value_range=model.value_range)))
        except ImageError as error:
            raise DataError(f"{source.path(index)}: {error}") from None
    return images


def _masks(model: MaskedAutoencoder, count: int, options: ReconstructOptions) -> Tensor:
    if options.mask:
        model.check_mask("painted")
        rows, columns = model.grid[0] // model.geometry.planes, model.grid[1]
        painted = torch.from_numpy(picture.read_mask(Path(options.mask), (rows, columns)).copy())
        return painted.flatten().repeat(count, model.geometry.planes)
    ratio = model.mask.ratio if options.mask_ratio is None else options.mask_ratio
    return drawn(model, count, options.seed, replace(model.mask, ratio=ratio))


def drawn(model: MaskedAutoencoder, count: int, seed: int, mask: MaskConfig) -> Tensor:
    """The masks of so many images in a row: bool [count, L]."""
    return masking.draw(mask, model.grid, keys_tensor(seed, torch.arange(count)), model.geometry.planes)
