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
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from maekit import presets
from maekit.config import PretrainConfig
from maekit.config.arguments import Command
from maekit.config.data import CACHE_LIMIT
from maekit.config.keywords import configured
from maekit.config.schema import size
from maekit.config.verbs import DataOptions, SuggestOptions
from maekit.data.arrays import NPY, npy_header
from maekit.data.decode import stored_mode
from maekit.data.ranges import LITTLE
from maekit.data.sources import Source, Space, open_source
from maekit.data.sources.elsewhere import some_of
from maekit.engine import memory, metrics
from maekit.engine.distributed import choose_device
from maekit.engine.progress import duration
from maekit.errors import Stopped, TrainingError
from maekit.inference import doctor
from maekit.recipes import pretrain, training, validation
from maekit.results import Examined, Suggested
from maekit.sections import Text

_LOOKED_AT, _PASSES, _SECONDS = 200, 32, 10.0  # images; passes that are timed, fewer where images take long to load
_MANY, _FOR_BASE, _HOLDS_OUT = 12_812, 200_000, 200  # images: a hundredth of ImageNet-1k's, a sixth, twenty held out
_SMALL, _THUMB, _TIMED = "vit-tiny-small-data", "rule of thumb, not measured", "timed here, by some passes of this run"


class Choice(NamedTuple):
    """options: with their values. because: what speaks for them; empty: they were given. basis: what that rests on."""

    options: Mapping[str, Any]
    because: str = ""
    basis: str = _THUMB

    @property
    def words(self) -> list[str]:
        """As they are typed."""
        return [word for name, value in self.options.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def run(options: SuggestOptions) -> Suggested:
    """`maekit suggest`. Raises DataError where no image can be read, TrainingError where one does not fit in memory."""
    source = open_source(options.source, options.image_column, Space.within(options.cache_limit))
    device = choose_device(options.device)
    look, channels = _look(source, options)
    preset, because, basis = _preset(source, device)
    choices = list(_choices(source, look, channels, options, preset, on_cpu=device.type == "cpu"))
    (rate, looks, least), fits = _timed(preset, choices, look.images_per_second or 1.0)
    looks = min(looks, max(least, 3600 * options.hours * validation.SHARE / (1 + validation.SHARE)))
    choices += fits
    config = _config(preset, choices)
    batch, images = config.schedule.images_a_step, len(source) - round(len(source) * (config.validation.split or 0))
    wanted = max(config.schedule.steps or 0, math.ceil((config.schedule.epochs or 0) * images / batch))
    steps = max(1, min(wanted, int((3600 * options.hours - looks) * rate / batch)))
    seconds, epochs = looks + steps * batch / rate, steps * batch / images
    why = f"about {duration(seconds)} for {epochs:,.0f} epochs by {rate:,.0f} images/s"
    why += f", {duration(looks)} of it for looks at held-out images" if looks else ""
    why += f"; {memory.peak(device)}"
    if steps < wanted:
        why += f"; the preset's own {wanted:,} steps take --hours {(looks + wanted * batch / rate) / 3600:.2g}"
    choices.append(Choice({"steps": steps}, why, _TIMED))
    name = re.search(r"\w[\w-]*", Path(options.source).name)
    out = f"runs/{name[0] if name else preset}"
    choices += [] if Path(out).exists() else [Choice({"out": out})]
    command = shlex.join(["maekit", "pretrain", preset, *(word for choice in choices for word in choice.words)])
    machine = f"{device}, {os.cpu_count()} cores, {memory.free(device)}"
    seen = f"{look.examined:,} of {look.images:,} images, and this machine: {machine}"
    told = [(preset, because, basis), *((shlex.join(one.words), *one[1:]) for one in choices if one.because)]
    said = [command, f"\nby a look at {seen}", *(f"\n  {what}\n      {why} ({basis})" for what, why, basis in told)]
    return Suggested(
        command=command,
        preset=preset,
        options={name: value for choice in choices for name, value in choice.options.items()},
        reasons=[dict(zip(("words", "because", "basis"), one, strict=True)) for one in told],
        images=len(source), looked_at=look.examined, hours=options.hours, steps=steps, epochs=epochs, batch_size=batch,
        images_per_second=rate, seconds=seconds, device=str(device), machine=machine, sections=[*map(Text, said)],
    )  # fmt: skip


def _look(source: Source, options: SuggestOptions) -> tuple[Examined, int]:
    """What the data doctor finds in some images, in a measured range where they need one; and their channels."""
    kinds = []
    for index in some_of(source, _LOOKED_AT).tolist():
        with contextlib.suppress(Exception):  # the doctor says why
            kinds.append(_channels(source.read(index)))
    channels, column = max(kinds, default=3), options.image_column
    asked = DataOptions(
        options.source, image_column=column, cache_limit=options.cache_limit, channels=channels, images=_LOOKED_AT
    )
    found = doctor.examine(asked)
    deep = [use["share"] for use in found.values if use["kept"] != "0 to 255"]
    needs = min(deep, default=1) < LITTLE or "--data.range" in str(found.unreadable)
    return doctor.run(replace(asked, range="measured" if needs else None)), channels


def _channels(data: Any) -> int:
    """How many an image has, by its header."""
    if isinstance(data, np.ndarray) or data.startswith(NPY):
        shape = data.shape if isinstance(data, np.ndarray) else npy_header(io.BytesIO(data))[0]
        return 1 if len(shape) < 3 else int(min(shape[0], shape[-1]))
    kind, mode, *count = stored_mode(data).split()
    if kind == "TIFF":
        return int(count[0][1:])
    return 1 if mode in ("1", "L", "LA") or mode.startswith("I") else 3


def _preset(source: Source, device: torch.device) -> tuple[str, str, str]:
    """Its name, because of what, and what that rests on."""
    images = len(source)
    if source.text.startswith("digits:"):
        return "digits", "made for these images", "measured: docs/results.md"
    if images < _MANY:
        made = f"{images:,} images are few; on 2,000 it made .48 of twenty labels a class, where .36 came from nothing"
        return _SMALL, made, "measured: docs/log.md, 2026-11-25"
    if device.type == "cpu":
        made = "a CPU: after 200 seconds of one core kNN was .117 on photographs of 64 px, where vit-tiny-fast had .089"
        return _SMALL, made, "measured, one run each: docs/recipes.md"
    name = "vit-base" if images >= _FOR_BASE else "vit-small-crossmae"
    return name, "a GPU; arXiv 2111.06377 has ViT-B and larger on 1,281,167 images", _THUMB


def _choices(
    source: Source, look: Examined, channels: int, options: SuggestOptions, preset: str, *, on_cpu: bool
) -> Iterator[Choice]:
    """All but the length."""
    config, images = presets.PRETRAIN[preset](), len(source)
    yield Choice({"data": options.source})
    if options.image_column:
        yield Choice({"image_column": options.image_column})
    if options.cache_limit != CACHE_LIMIT:
        yield Choice({"cache_limit": options.cache_limit})
    if options.device != "auto":
        yield Choice({"device": options.device})
    held_out = 0.0 if preset == "digits" or images < _HOLDS_OUT else 0.1
    if preset != "digits":
        yield from _of_images(look, channels, config)
    if held_out:
        tell = "loss, RankMe and kNN" if look.classes else "loss and RankMe"
        yield Choice({"val_split": held_out}, f"{tell} of held-out images say, while it runs, whether it works")
    batch = config.schedule.fitting_batch(images - round(images * held_out), 1, on_cpu=on_cpu)
    yield Choice({"batch_size": batch}, f"of the recipe's {config.schedule.recipe_batch_size:,}, by images and device")


def _of_images(look: Examined, channels: int, config: PretrainConfig) -> Iterator[Choice]:
    """What sizes, channels and values of the images decide."""
    side, most = config.model.image_hw[0], size(config.model.patch_size or 16)[0]
    assert look.sizes is not None
    assert look.mean is not None
    shorter = int(min(look.sizes[name]["median"] for name in ("width", "height")))
    patch = min(most, max(2, round(shorter * most / side)))
    units = max(2, min(side // most, shorter // patch))
    because = f"{units}x{units} patches, the preset's number where images of {shorter:,} px, the median, have them"
    yield Choice({"image_size": units * patch, "model.patch_size": patch}, because)
    if channels != 3:
        yield Choice({"model.channels": channels}, "as the images have", "seen")
    if look.range:
        because = "stored values from {:g} to {:g} become black to white".format(*look.range)
        yield Choice({"data.range": "measured"}, because, "seen")
    because = f"their own mean, {', '.join(f'{mean:.2f}' for mean in look.mean)}, as nothing is known from elsewhere"
    yield Choice({"normalise": "measured"}, because)


def _config(preset: str, choices: list[Choice]) -> PretrainConfig:
    """What the command runs."""
    values = {name: value for choice in choices for name, value in choice.options.items()}
    command = Command("pretrain", f"maekit pretrain {preset}", "")
    return configured(PretrainConfig, values, command, presets.PRETRAIN[preset]())


def _timed(preset: str, choices: list[Choice], loading: float) -> tuple[tuple[float, float, float], list[Choice]]:
    """What `timed_passes` takes, and what has to be added for a pass to fit into memory."""
    config, fits = _config(preset, choices), list[Choice]()
    micro = config.schedule.micro_batch(1)
    while True:
        try:
            return timed_passes(config, micro, max(4, min(_PASSES, int(_SECONDS * loading / micro)))), fits
        except TrainingError as error:
            if "out of memory" not in str(error) or micro == 1:
                raise
        micro = max(divisor for divisor in range(1, micro) if micro % divisor == 0)
        fits = [Choice({"micro_batch_size": micro}, "more images a pass do not fit into memory", _TIMED)]


class _Timed(pretrain.Pretraining):
    """A run that looks at few held-out images, and says how many seconds it would take to look at as many as it may in
    all validations (`looks`), and at as few (`least`)."""

    def make_task(self) -> pretrain.PretrainTask:
        task = super().make_task()
        evaluate, judge = task.evaluate, self._validation

        def timed() -> dict[str, float]:
            began, said = time.perf_counter(), evaluate()
            if judge is None:
                return said
            seconds = validation.TIMES * (time.perf_counter() - began) / max(1, judge.passes())
            counts = {"looks": validation.MOST, "least": validation.FEWEST}
            return said | {name: seconds * judge.passes(count) for name, count in counts.items()}

        task.evaluate = timed  # type: ignore[method-assign]
        return task


def timed_passes(config: PretrainConfig, micro: int, passes: int) -> tuple[float, float, float]:
    """Images a second over the later half of some passes, before which workers load ahead; and the most and the fewest
    seconds that a whole run looks at held-out images."""
    schedule = replace(config.schedule, steps=passes, batch_size=micro, micro_batch_size=micro)
    held_out = replace(config.validation, every=1e9, images=_LOOKED_AT)  # at the end alone
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            begun = replace(config.run, out=folder, log_every=1, tensorboard=False)
            answer = training.run(_Timed, replace(config, schedule=schedule, validation=held_out, run=begun))
            rates = [line["images_per_second"] for line in metrics.read(Path(folder, "metrics.jsonl"))[passes // 2 :]]
            pace = len(rates) / sum(1 / rate for rate in rates)
            return pace, answer.get("looks", 0.0), answer.get("least", 0.0)
    except Stopped as stopped:
        raise KeyboardInterrupt from stopped
    finally:
        logging.disable(before)
