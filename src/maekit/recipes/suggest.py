"""One command that pretrains on a person's images, with what speaks for each of its options.

How fast this machine is, is measured: the very run is begun, and timed. What is a rule of thumb says so.
"""

import contextlib
import io
import logging
import math
import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from maekit import presets
from maekit.config import PretrainConfig
from maekit.config.arguments import Command, parse
from maekit.config.verbs import DataOptions, SuggestOptions
from maekit.data.arrays import NPY, npy_header
from maekit.data.decode import stored_mode
from maekit.data.ranges import LITTLE, evenly_spread
from maekit.data.sources import Source, open_source
from maekit.engine import memory, metrics
from maekit.engine.distributed import choose_device
from maekit.engine.progress import duration
from maekit.errors import DataError, Stopped, TrainingError
from maekit.inference import doctor
from maekit.recipes import pretrain
from maekit.results import Suggested
from maekit.sections import Text

_LOOKED_AT, _PASSES, _SECONDS = 200, 16, 10.0  # images; passes that are timed, fewer where images take long to load
_MANY, _FOR_BASE, _HOLDS_OUT = 12_812, 200_000, 200  # images: a hundredth of ImageNet-1k's, a sixth, twenty held out
_THUMB, _TIMED = "rule of thumb, not measured", "timed here, by some passes of this run"


class Choice(NamedTuple):
    """words: of the command. because: what speaks for them; empty: they were given. basis: what that rests on."""

    words: tuple[str, ...]
    because: str = ""
    basis: str = _THUMB


def run(options: SuggestOptions) -> Suggested:
    """`maekit suggest`. Raises DataError where no image can be read, TrainingError where memory is too small."""
    source, device = open_source(options.source, options.image_column), choose_device(options.device)
    look = _look(source, options)
    choices = list(_choices(source, look, options, device))
    rate, fits = _timed(choices, look["images_per_second"])
    config = _config(choices + fits)
    batch, images = config.schedule.images_a_step, len(source) - round(len(source) * (config.validation.split or 0))
    wanted = max(config.schedule.steps or 0, math.ceil((config.schedule.epochs or 0) * images / batch))
    steps = max(1, min(wanted, int(3600 * options.hours * rate / batch)))
    seconds, epochs = steps * batch / rate, steps * batch / images
    because = f"about {duration(seconds)} for {epochs:,.0f} epochs by {rate:,.0f} images/s; {memory.peak(device)}"
    if steps < wanted:
        because += f"; the preset's own {wanted:,} steps take --hours {wanted * batch / rate / 3600:.2g}"
    name = re.sub(r"[:@].*|\W+$", "", Path(options.source).name) or config.name
    out = Choice(() if Path("runs", name).exists() else ("--out", f"runs/{name}"))
    choices += [*fits, Choice(("--steps", str(steps)), because, _TIMED), out]
    command = shlex.join(["maekit", "pretrain", *(word for choice in choices for word in choice.words)])
    machine, reasons = f"{device}, {os.cpu_count()} cores, {memory.free(device)}", [c for c in choices if c.because]
    said = [f"{command}\n\nby a look at {look['examined']:,} of {len(source):,} images, and this machine: {machine}"]
    said += [f"\n  {shlex.join(one.words)}\n      {one.because} ({one.basis})" for one in reasons]
    return Suggested(
        command=command, preset=config.name, reasons=[one._asdict() for one in reasons], images=len(source),
        looked_at=look["examined"], hours=options.hours, steps=steps, epochs=epochs, batch_size=batch,
        images_per_second=rate, seconds=seconds, device=str(device), machine=machine, sections=[Text("\n".join(said))],
    )  # fmt: skip


def _look(source: Source, options: SuggestOptions) -> dict[str, Any]:
    """What the data doctor finds in some images, with their `channels`; `range` is set where they need one."""
    kinds = []
    for index in evenly_spread(len(source), _LOOKED_AT).tolist():
        with contextlib.suppress(Exception):  # the doctor says why
            kinds.append(_channels(source.read(index)))
    channels, column = max(kinds, default=3), options.image_column
    asked = DataOptions(source=options.source, image_column=column, channels=channels, images=_LOOKED_AT)
    found = doctor.examine(asked).as_dict()
    deep = [use["share"] for use in found["values"] if use["kept"] != "0 to 255"]
    if min(deep, default=1) < LITTLE or "--data.range" in str(found["unreadable"]):
        found = doctor.examine(replace(asked, range="measured")).as_dict()
    if found["sizes"] is None:
        raise DataError(f"{source.text}: no image can be read: {found['unreadable'][0]['reason']}")
    return found | {"channels": channels}


def _channels(data: Any) -> int:
    """How many an image has, by its header."""
    if isinstance(data, np.ndarray) or data.startswith(NPY):
        shape = data.shape if isinstance(data, np.ndarray) else npy_header(io.BytesIO(data))[0]
        return 1 if len(shape) < 3 else int(min(shape[0], shape[-1]))
    kind, mode, *count = stored_mode(data).split()
    if kind == "TIFF":
        return int(count[0][1:])
    return 1 if mode in ("1", "L", "LA") or mode.startswith("I") else 3


def _choices(source: Source, look: dict[str, Any], options: SuggestOptions, device: torch.device) -> Iterator[Choice]:
    """All but the length, the preset first."""
    images, on_cpu, digits = len(source), device.type == "cpu", source.text.startswith("digits:")
    because = f"{images:,} images are few; on 2,000 it made .48 of twenty labels a class, where .36 came from nothing"
    small = Choice(("vit-tiny-small-data",), because, "measured: docs/log.md, 2026-11-25")
    if digits:
        preset = Choice(("digits",), "made for these images", "measured: docs/results.md")
    elif images < _MANY:
        preset = small
    elif on_cpu:
        preset = small._replace(because="a CPU: .11 GFLOP an image where vit-small-crossmae has 4.9", basis="counted")
    else:
        name = "vit-base" if images >= _FOR_BASE else "vit-small-crossmae"
        preset = Choice((name,), "a GPU; arXiv 2111.06377 has ViT-B and larger on 1,281,167 images")
    yield preset
    yield Choice(("--data", options.source))
    if options.image_column:
        yield Choice(("--image-column", options.image_column))
    if options.device != "auto":
        yield Choice(("--device", options.device))
    config = presets.PRETRAIN[preset.words[0]]()
    if not digits:
        yield from _of_images(look, config)
    held_out = 0.0 if digits or images < _HOLDS_OUT else 0.1
    if held_out:
        tell = "loss, RankMe and kNN" if look["classes"] else "loss and RankMe"
        yield Choice(("--val-split", str(held_out)), f"{tell} of held-out images say, while it runs, whether it works")
    batch = config.schedule.fitting_batch(images - round(images * held_out), 1, on_cpu=on_cpu)
    yield Choice(
        ("--batch-size", str(batch)), f"of the recipe's {config.schedule.recipe_batch_size:,}, by images and device"
    )


def _of_images(look: dict[str, Any], config: PretrainConfig) -> Iterator[Choice]:
    """What sizes, channels and values of the images decide."""
    side, most = config.model.image_hw[0], config.model.patch_size or 16
    assert isinstance(most, int)
    shorter = int(min(look["sizes"][name]["median"] for name in ("width", "height")))
    patch = min(most, max(2, round(shorter * most / side)))
    units = max(2, min(side // most, shorter // patch))
    because = f"{units}x{units} patches, the preset's number where images of {shorter:,} px, the median, have them"
    yield Choice(("--image-size", str(units * patch), "--model.patch-size", str(patch)), because)
    if look["channels"] != 3:
        yield Choice(("--model.channels", str(look["channels"])), "as the images have", "seen")
    if look["range"]:
        low, high = look["range"]
        yield Choice(("--data.range", "measured"), f"stored values from {low:g} to {high:g} are black to white", "seen")
    because = (
        f"their own mean, {look['mean'][0]:.2f} ..., and spread, {look['std'][0]:.2f} ..., as it starts from nothing"
    )
    yield Choice(("--normalise", "measured"), because)


def _config(choices: list[Choice]) -> PretrainConfig:
    """What the command runs."""
    name, words = choices[0].words[0], [word for choice in choices[1:] for word in choice.words]
    return parse(PretrainConfig, words, Command("pretrain", f"maekit pretrain {name}", ""), presets.PRETRAIN[name]())


def _timed(choices: list[Choice], loading: float) -> tuple[float, list[Choice]]:
    """Images a second in training, and what has to be added for a pass to fit into memory."""
    config, fits = _config(choices), list[Choice]()
    micro = config.schedule.micro_batch(1)
    while True:
        try:
            return _passes(config, micro, max(4, min(_PASSES, int(_SECONDS * loading / micro)))), fits
        except TrainingError as error:
            if "out of memory" not in str(error) or micro == 1:
                raise
        micro = max(divisor for divisor in range(1, micro) if micro % divisor == 0)
        fits = [Choice(("--micro-batch-size", str(micro)), "more images a pass do not fit into memory", _TIMED)]


def _passes(config: PretrainConfig, micro: int, passes: int) -> float:
    """Images a second over the later half of some passes; workers have loaded ahead of the first ones."""
    schedule = replace(config.schedule, steps=passes, batch_size=micro, micro_batch_size=micro)
    validation = replace(config.validation, every=1e9)  # at the end alone
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            run = replace(config.run, out=folder, log_every=1, tensorboard=False)
            pretrain.run(replace(config, schedule=schedule, validation=validation, run=run))
            rates = [line["images_per_second"] for line in metrics.read(Path(folder, "metrics.jsonl"))[passes // 2 :]]
            return len(rates) / sum(1 / rate for rate in rates)
    except Stopped as stopped:
        raise KeyboardInterrupt from stopped
    finally:
        logging.disable(logging.NOTSET)
