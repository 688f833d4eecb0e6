"""The same held-out images as a model paints them at some moments of its training: small strips in the run folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from maekit.inference import picture
from maekit.inference.picture import Pixels
from maekit.sections import Heading, Section, Strips

SHOWN = 6  # images in a strip
_SHARES = (0.0, 0.05, 0.2, 0.5, 1.0)  # of the steps
_SIDE = 112  # px of an image in a strip
_GAP = 4
_STEP = "step-"
FIRST, LAST = "masked", "original"  # the strips above and below those of the steps


def steps_of(steps: int) -> list[int]:
    """The five moments of a run of so many steps, of which a short one has fewer; 0 is before the first."""
    return sorted({round(share * steps) for share in _SHARES})


def at_step(step: int) -> str:
    """The name of a moment's strip."""
    return f"{_STEP}{step}"


def write(run: Path, strips: Mapping[str, Sequence[Pixels]]) -> None:
    """Write a strip, images side by side, by its name. Raises StorageError, OSError."""
    folder = run / "pictures" / "moments"
    folder.mkdir(parents=True, exist_ok=True)
    for name, images in strips.items():
        panels = [picture.panel(np.asarray(image), _SIDE) for image in images]
        for panel in panels:
            panel.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        width = sum(panel.width + _GAP for panel in panels) - _GAP
        strip = Image.new("RGB", (width, max(panel.height for panel in panels)), "white")
        left = 0
        for panel in panels:
            strip.paste(panel, (left, 0))
            left += panel.width + _GAP
        picture.save(strip, folder / f"{name}.jpg")


def read(run: Path, until: int) -> dict[str, bytes]:
    """The strips of a run up to a step as JPEG, by what they show: masked, step 0 and so on, original."""
    folder = run / "pictures" / "moments"
    steps = [path.stem.removeprefix(_STEP) for path in folder.glob(f"{_STEP}*.jpg")]
    numbers = sorted(int(step) for step in steps if step.isdigit() and int(step) <= until)
    named = {FIRST: FIRST, **{at_step(step): f"step {step:,}" for step in numbers}, LAST: LAST}
    found = {}
    for stem, name in named.items():
        try:
            found[name] = (folder / f"{stem}.jpg").read_bytes()
        except OSError:
            continue
    return found


def sections(run: Path, until: int) -> list[Section]:
    """What was painted up to a step, moment under moment."""
    strips = read(run, until)
    if not strips:
        return []
    caption = (
        "The same images under the same masks, as the model painted them at these steps. Visible patches are the "
        "image's own; step 0 is before training."
    )
    return [Heading("Painted during training"), Strips([*strips.items()], caption)]
