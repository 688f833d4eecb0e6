"""The whole story on embedded real data: pretrain, judge, fine-tune with few labels, reconstruct, report."""

import logging
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from maekit.config import ClassifyConfig, PretrainConfig, ProbeConfig, RunConfig
from maekit.config.verbs import DemoOptions
from maekit.data.sources import Source, open_source
from maekit.engine.evaluate import collapse
from maekit.engine.progress import duration, quiet
from maekit.inference.one_pass import any_unreadable
from maekit.models import mae
from maekit.models.mae import MaskedAutoencoder
from maekit.presets import FINETUNE, PRETRAIN, SCRATCH
from maekit.recipes import classify, pretrain, probe
from maekit.recipes.pictured import Shown
from maekit.report import figures, page
from maekit.report.run import run_sections
from maekit.results import Demo
from maekit.sections import Figure, Heading, Picture, Section, Table, Text
from maekit.weights.load import reconstructor

log = logging.getLogger("maekit")

_KINDS = {"knn": "kNN", "linear": "linear"}
_STARTS = {"from scratch": "scratch", "pretrained": "finetune"}

Judged = dict[str, dict[str, float]]
"""Top-1 by kind of probe, by encoder."""


def run(options: DemoOptions) -> Demo:
    """Tell the story in a run folder.

    The test digits are looked at for the numbers that are shown, and for nothing else.
    """
    config = _pretraining(options)
    log.info("part 1 of 3, about two thirds of the time: pretraining, %d steps", config.schedule.steps)
    began = time.monotonic()
    answer = pretrain.run(config)
    pace = (time.monotonic() - began) / max(1, answer["steps"])
    out = Path(options.out)
    model = reconstructor(out)
    train, test = open_source(config.data.source), open_source(config.validation.source)
    means, stds = model.standardise.values()
    expected = pace * (options.few_label_steps or FINETUNE["digits"]().schedule.steps or 0)
    left = duration(2 * options.seeds * expected)
    log.info("part 2 of 3: judging frozen features of the encoder, untrained and pretrained; about %s left", left)
    untrained = mae.build(config.model, config.target, config.mask, means, stds, seed=config.run.seed)
    judged = {"untrained": _judge(untrained, train, test), "pretrained": _judge(model, train, test)}
    few = _few_labels(options, expected)
    _report(config, options, model, judged, few)
    if warning := collapse(answer["val_rankme"], len(test)):
        log.warning("%s", warning)
    return Demo.of(answer, probe=judged, few_labels=few, sections=_summary(options, judged, few, out))


def _pretraining(options: DemoOptions) -> PretrainConfig:
    preset = PRETRAIN["digits"]()
    schedule = replace(preset.schedule, steps=options.steps)
    run = replace(preset.run, out=options.out, overwrite=options.overwrite, seed=options.seed)
    return replace(preset, schedule=schedule, run=run)


def _judge(model: MaskedAutoencoder, train: Source, test: Source) -> dict[str, float]:
    said = probe.judge(model, train, test, ProbeConfig(kinds=tuple(_KINDS), crop_share=1.0, workers=0))
    return {kind: said[kind]["top1"] for kind in _KINDS}


def _few_labels(options: DemoOptions, expected: float) -> dict[str, list[float]]:
    """Test accuracies after training with few labels per class, by start, one a seed; both verbs have one budget.

    expected: seconds of a training, before the first.
    """
    accuracies: dict[str, list[float]] = {name: [] for name in _STARTS}
    times: list[float] = []
    for name, verb in _STARTS.items():
        for seed in range(options.seed, options.seed + options.seeds):
            left = (2 * options.seeds - len(times)) * (mean(times) if times else expected)
            log.info(
                "part 3 of 3: %s with %d labels per class, draw %d; about %s left",
                verb, options.per_class, seed, duration(left),
            )  # fmt: skip
            began = time.monotonic()
            with quiet():
                answer = _train_few(options, verb, seed)
            times.append(time.monotonic() - began)
            accuracies[name].append(answer["val_top1"])
    return accuracies


def _train_few(options: DemoOptions, verb: str, seed: int) -> dict[str, Any]:
    preset: ClassifyConfig = (FINETUNE if verb == "finetune" else SCRATCH)["digits"]()
    schedule = preset.schedule
    if options.few_label_steps is not None:
        schedule = replace(schedule, steps=options.few_label_steps)
    folder = str(Path(options.out) / "few-labels" / f"{verb}-{seed}")
    run: RunConfig = replace(preset.run, out=folder, overwrite=options.overwrite, seed=seed, tensorboard=False)
    config = replace(preset, schedule=schedule, run=run, per_class=options.per_class)
    if verb == "finetune":
        return classify.finetune(replace(config, weights=options.out))
    return classify.scratch(config)


def _report(
    config: PretrainConfig, options: DemoOptions, model: MaskedAutoencoder, judged: Judged, few: dict[str, list[float]]
) -> None:
    out = Path(options.out)
    train, test = open_source(config.data.source), open_source(config.validation.source)
    painted = pretrain.reconstruction_picture(model, Shown(test, any_unreadable(test)), config.run.seed)
    assert painted is not None  # digits can be read
    probe_rows = [[name, *(f"{values[kind]:.3f}" for kind in _KINDS)] for name, values in judged.items()]
    few_rows = [[name, _spread(values), str(len(values))] for name, values in few.items()]
    sections = [
        Text(
            f"A masked autoencoder saw {len(train):,} scanned digits without their labels, {config.mask.ratio:.0%} of "
            "each hidden, and learned to paint what was hidden. What its encoder made of that is judged here on "
            f"{len(test)} digits it never saw."
        ),
        Heading("What it paints"),
        Picture(painted, "Held-out digits: what the encoder was shown, what was painted, and the digit itself."),
        Heading("What its features know"),
        Table(
            ["encoder", *_KINDS.values()],
            probe_rows,
            f"Top-1 on the {len(test)} test digits, from frozen features (the mean of patches). Untrained: the same "
            "encoder with its initial weights.",
        ),
        Heading(f"Learning from {options.per_class} labels per class"),
        Table(
            ["start", "top-1", "draws"],
            few_rows,
            f"The whole network trained on {10 * options.per_class} labelled digits, the same steps and augmentation "
            "from both starts. Mean and standard deviation over draws of labels and seeds.",
        ),
        Figure(
            figures.bars(few, xlabel=f"{options.per_class} labels per class", ylabel="top-1 on test digits"),
            "Each dot is one draw.",
        ),
        *run_sections(out),
    ]
    page.write(out / "report.html", "maekit demo: digits without labels", sections)


def _summary(options: DemoOptions, judged: Judged, few: dict[str, list[float]], out: Path) -> list[Section]:
    rows = [[f"  {name}", *(f"{values[kind]:.3f}" for kind in _KINDS)] for name, values in judged.items()]
    drawn = [[f"  {name}", _spread(values)] for name, values in few.items()]
    return [
        Table(["frozen features, top-1", *_KINDS.values()], rows),
        Table([f"{options.per_class} labels per class, top-1", ""], drawn),
        Text(f"report: {out / 'report.html'}"),
    ]


def _spread(values: list[float]) -> str:
    return f"{mean(values):.3f} ± {stdev(values):.3f}" if len(values) > 1 else f"{mean(values):.3f}"
