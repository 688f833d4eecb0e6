"""Draws the pictures in docs/masks.md: `python docs/draw_masks.py`."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from maekit import masking
from maekit.config import MaskConfig
from maekit.inference import picture
from maekit.randomness import keys_tensor

FOLDER = Path(__file__).parent / "pictures"
GRID, PATCH = (14, 14), 16
KINDS = {
    "random": MaskConfig(kind="random", ratio=0.75),
    "block": MaskConfig(kind="block", ratio=0.5),
    "grid": MaskConfig(kind="grid", ratio=0.75),
    "one in 2x2": MaskConfig(kind="one_in_2x2", ratio=0.75),
}


def backdrop() -> np.ndarray:
    """Smooth colours with a disc, 224 px: something of which one sees what is missing."""
    rows, columns = np.mgrid[0:224, 0:224] / 223
    colours = np.stack([0.35 + 0.5 * rows, 0.55 + 0.3 * columns, 0.9 - 0.5 * rows * columns], -1)
    disc = (rows - 0.45) ** 2 + (columns - 0.55) ** 2 < 0.07
    colours[disc] = (0.95, 0.75, 0.3)
    return (colours * 255).round().astype(np.uint8)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    image = backdrop()
    panels = []
    for config in KINDS.values():
        masked = masking.draw(config, GRID, keys_tensor(0, torch.arange(3))).numpy().reshape(3, *GRID)
        panels.append([picture.masked_panel(image, one) for one in masked])
    rows = [picture.Row(*panel) for panel in panels]
    names = ", ".join(KINDS)
    picture.save(
        picture.grid(rows, headings=("image 1", "image 2", "image 3"), caption=f"From the top: {names}."),
        FOLDER / "masks.png",
    )
    painted = np.zeros((140, 140), np.uint8)
    painted[40:110, 30:120] = 255
    Image.fromarray(painted).save(FOLDER / "painted.png")
    masked = picture.read_mask(FOLDER / "painted.png", GRID)
    shown = picture.Row(np.stack([painted] * 3, -1), picture.masked_panel(image, masked), image)
    picture.save(
        picture.grid([shown], headings=("the mask file", "what the model sees", "image")), FOLDER / "painted-mask.png"
    )


if __name__ == "__main__":
    main()
