"""How often a classifier is right.

Legend: N images, Y classes, K = min(5, Y) guesses.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

from maekit import storage
from maekit.config.verbs import EvaluateOptions
from maekit.data.loader import BadImages, Batch
from maekit.data.sources import Source, Space, open_source
from maekit.data.sources.labelled import is_numbered, matching_classes, say_matching, used_labels
from maekit.engine.distributed import World
from maekit.errors import DataError, UsageError
from maekit.inference.one_pass import any_unreadable, one_pass, printable, require_finite, skipped, together
from maekit.models.classifier import Classifier
from maekit.results import Evaluated
from maekit.sections import Section, Table, Text
from maekit.weights.load import classifier

DRAWN_CLASSES = 30
"""Classes at most whose confusion is drawn and whose table is printed whole."""
_WORST = 10
_GUESSES = 5
_NAMED = 3

Heat = Callable[[ArrayLike, Sequence[str]], str]
"""Draws counts [Y, Y], row = true class, with the classes' names, as SVG."""


@dataclass(frozen=True)
class Evaluation:
    """What a classifier made of N labelled images, in the order they came. On the CPU.

    guesses: [N, K] int64, the most probable classes, best first, the lower number first where two are equal.
    labels: [N] int64. losses: [N] float32, cross-entropy. classes: Y names.
    """

    guesses: Tensor
    labels: Tensor
    losses: Tensor
    classes: tuple[str, ...]

    @property
    def images(self) -> int:
        return len(self.labels)

    @property
    def top1(self) -> float:
        """Share whose best guess is right."""
        return int(self._right.sum()) / self.images

    @property
    def top5(self) -> float:
        """Share whose label is among the five best guesses; 1 where there are no more than five classes."""
        return int((self.guesses == self.labels[:, None]).sum()) / self.images

    @property
    def loss(self) -> float:
        """Mean cross-entropy."""
        return float(self.losses.double().mean())

    def per_class(self) -> tuple[Tensor, Tensor]:
        """How many images each class has and how many of them are right, two of [Y] int64."""
        total = torch.bincount(self.labels, minlength=len(self.classes))
        return total, torch.bincount(self.labels[self._right], minlength=len(self.classes))

    def confusion(self) -> Tensor:
        """Counts [Y, Y] int64: row = true class, column = best guess."""
        classes = len(self.classes)
        pairs = self.labels * classes + self.guesses[:, 0]
        return torch.bincount(pairs, minlength=classes**2).view(classes, classes)

    def table(self) -> dict[str, dict[str, Any]]:
        """{top1, images} by class, top1 None without images; a name that several share is followed by their numbers."""
        occurrences = Counter(self.classes)
        counts = (part.tolist() for part in self.per_class())
        table = {}
        for number, (name, images, right) in enumerate(zip(self.classes, *counts, strict=True)):
            unique = name if occurrences[name] == 1 else f"{name} ({number})"
            table[unique] = {"top1": right / images if images else None, "images": images}
        return table

    @property
    def _right(self) -> Tensor:
        return self.guesses[:, 0] == self.labels


@torch.no_grad()
def judge(model: Classifier, batches: Iterable[Batch], world: World | None = None) -> Evaluation:
    """A classifier's guesses for labelled images; those without a label (-1) are left out.

    The model must be in eval mode. It runs in float32 whatever autocast surrounds it, so that a number from training
    can be had again from the weights. world: the processes that each judge a part; all get the whole.
    Raises DataError where no image has a label.
    """
    best = min(_GUESSES, len(model.classes))
    judged = [(torch.empty(0, best, dtype=torch.int64), torch.empty(0, dtype=torch.int64), torch.empty(0))]
    for batch in batches:
        with torch.autocast(model.device.type, enabled=False):
            logits = model(model.standardise(batch.images.to(model.device, non_blocking=True)))
        logits = logits.float().cpu()
        guesses, labels = logits.argsort(dim=1, descending=True, stable=True)[:, :best], batch.labels.cpu()
        judged.append((guesses, labels, F.cross_entropy(logits, labels, ignore_index=-1, reduction="none")))
    parts = tuple(map(torch.cat, zip(*judged, strict=True)))
    guesses, labels, losses = parts if world is None else world.gather_rows(*parts)
    known = labels >= 0
    if not known.any():
        raise DataError("no image has a label, so nothing can be judged")
    return Evaluation(guesses[known], labels[known], losses[known], model.classes)


def evaluate(options: EvaluateOptions, *, heat: Heat) -> Evaluated:
    """`maekit evaluate`: how often W is right. heat: what draws the confusion picture."""
    picture = Path(options.confusion) if options.confusion else None
    if picture is not None:
        storage.check_writable(picture)
    model = classifier(options.weights, options)
    known = len(model.classes)
    if picture is not None and known > DRAWN_CLASSES:
        raise UsageError(f"--confusion: drawn for up to {DRAWN_CLASSES} classes; {options.weights} knows {known}")
    with together(options.device) as world:
        space = Space.within(options.cache_limit)
        source = world.patiently(lambda: open_source(options.data, options.image_column, space))
        numbers = class_numbers(source, model.classes, options.weights)
        bad = any_unreadable(source)
        batches = one_pass(source, model.to(world.device), options, bad, world)
        evaluation = judge(model, _renumbered(batches, numbers), world)
        bad.share(world.gather)
        require_finite(evaluation.losses, options.weights)
        return _written(evaluation, len(source), bad, picture if world.is_first else None, heat)


def _written(evaluation: Evaluation, images: int, bad: BadImages, picture: Path | None, heat: Heat) -> Evaluated:
    table = evaluation.table()
    said = _told(evaluation, table, unlabelled=images - len(bad) - evaluation.images, unreadable=len(bad))
    if picture is not None:
        storage.write_text(
            picture, heat(evaluation.confusion().numpy(), [printable(name) for name in evaluation.classes])
        )
        said.append(Text(f"confusion: {picture}"))
    return Evaluated(
        top1=evaluation.top1, top5=evaluation.top5, loss=evaluation.loss, images=evaluation.images, classes=table,
        skipped=skipped(bad), sections=said,
    )  # fmt: skip


def class_numbers(source: Source, classes: Sequence[str], weights: str) -> Tensor:
    """The weights' class for each label of a source, int64.

    By name where both sides name their classes, in whatever order. Labels without names (a list file's) are the
    weights' classes by number, and so are those of named classes, in their order, where the weights have numbers only.
    Raises DataError where the source has no labels, a number too large, or other classes.
    """
    if source.classes is None:
        raise DataError(f"{source.text}: has no labels, which evaluation needs; to see predictions use maekit classify")
    found, known = source.classes, tuple(classes)
    if found == known:
        return torch.arange(len(known))
    used = used_labels(source)
    numbers = matching_classes(found, known, used)
    if numbers is None and is_numbered(found) and len(found) > len(known):
        index = next(i for i in range(len(source)) if (source.label(i) or 0) >= len(known))
        raise DataError(
            f"{source.text}: {source.path(index)} has label {source.label(index)}, but {weights} knows "
            f"{len(known)} classes, 0 to {len(known) - 1}"
        )
    if numbers is None or (len(found) < len(known) and not is_numbered(found)):
        raise DataError(f"{source.text} and {weights}: have different classes: {_difference(found, known)}")
    say_matching(source.text, found, weights, known, used)
    return torch.from_numpy(numbers)


def _difference(found: Sequence[str], known: Sequence[str]) -> str:
    only = {"the source": sorted({*found} - {*known}), "the weights": sorted({*known} - {*found})}
    said = [
        f"{len(names)} only in {side} ({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''})"
        for side, names in only.items()
        if names
    ]
    return "; ".join(said) or "some share a name"


def _renumbered(batches: Iterable[Batch], numbers: Tensor) -> Iterator[Batch]:
    for batch in batches:
        labels = torch.where(batch.labels >= 0, numbers[batch.labels.clamp(min=0)], batch.labels)
        yield replace(batch, labels=labels)


def shown_classes(classes: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a table that a person reads: all of up to 30 classes, else the worst ten that have images."""
    rows = list(classes.items())
    if len(rows) <= DRAWN_CLASSES:
        return rows
    seen = [row for row in rows if row[1]["images"]]
    return sorted(seen, key=lambda row: (row[1]["top1"], -row[1]["images"]))[:_WORST]


def _told(
    evaluation: Evaluation, classes: dict[str, dict[str, Any]], *, unlabelled: int, unreadable: int
) -> list[Section]:
    counts = {"unlabelled": unlabelled, "unreadable": unreadable}
    left_out = "".join(f", {count} {what} left out" for what, count in counts.items() if count)
    shares = f"top-1 {evaluation.top1:.2%}  top-5 {evaluation.top5:.2%}  loss {evaluation.loss:.4f}"
    said: list[Section] = [Text(f"{shares}  {evaluation.images} images{left_out}")]
    rows = shown_classes(classes)
    if len(rows) < len(classes):
        said.append(Text(f"the worst {len(rows)} of {len(classes)} classes; --json has all:"))
    cells = [(printable(name), share(values["top1"]), str(values["images"])) for name, values in rows]
    return [*said, Table(["class", "top-1", "images"], cells)]


def share(value: float | None) -> str:
    """A class's top-1 as it is read; a dash where it has no image."""
    return "-" if value is None else f"{value:.2%}"
