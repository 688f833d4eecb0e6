"""What the verbs answer: values for programs, text for a terminal, tables and pictures for a notebook."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

from maekit.sections import Section, html, text

Left = Sequence[Mapping[str, str]]
"""{path, reason} of each image that could not be read."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What every answer is. `str` of it is what the command prints, `as_dict()` what it prints with --json."""

    sections: Sequence[Section] = field(default=(), repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, without what does not apply, such as a difference where nothing was compared."""
        said = {one: getattr(self, one.name) for one in fields(self) if one.repr}
        return {one.name: value for one, value in said.items() if value is not None or one.default is not None}

    def __str__(self) -> str:
        return "\n".join(filter(None, map(text, self.sections)))

    def _repr_html_(self) -> str:
        return "\n".join(map(html, self.sections))


@dataclass(frozen=True, kw_only=True)
class Run(Result):
    """A training: its run folder (None on all processes but the first), the step it ended at, images that could not be
    read and what the source held beside them."""

    run: str | None
    steps: int
    unreadable: int | None = None
    passed_over: Mapping[str, Any] | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    """The last line of its history: loss, lr, val_top1, val_knn and the like; None for what is not finite."""
    stopped: str | None = None
    """The signal that ended it before its time, after saving: SIGINT, of Ctrl-C or an interrupted cell."""
    ended_early: str | None = None
    """Why it is complete before the end of its plan, where `validation.stop_after` ended it."""

    @classmethod
    def of(cls, answer: Mapping[str, Any], **more: Any) -> Self:
        """A recipe's answer, {run, steps, unreadable, passed_over, loss, ...}, as one of these."""
        own = {"run", "steps", "unreadable", "passed_over", "stopped", "ended_early"}
        record = {name: value for name, value in answer.items() if name not in own}
        return cls(**{name: answer[name] for name in own & answer.keys()}, record=record, **more)

    @property
    def complete(self) -> bool:
        """Whether it came to its end. `resume=True` goes on with what did not."""
        return self.stopped is None

    @property
    def loss(self) -> float | None:
        """The last one that was logged."""
        return self.record.get("loss")

    def as_dict(self) -> dict[str, Any]:
        said = super().as_dict()
        return said | said.pop("record")


@dataclass(frozen=True, kw_only=True)
class Demo(Run):
    """The whole story: top-1 by encoder and kind of probe, and by start, one number a draw of few labels."""

    probe: Mapping[str, Mapping[str, float]]
    few_labels: Mapping[str, Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class Probed(Result):
    """How good frozen features are, seen in a centre crop of `crop_share`; top-1 are shares of the val images."""

    probes: Mapping[str, Mapping[str, Any]]
    """By kind of probe its first row: {top1, features, blocks, ...}; knn also by_k, top-1 by number of neighbours."""
    rows: Sequence[Mapping[str, Any]]
    """One for each kind, choice of features and number of neighbours."""
    rankme: float | None = None
    """Effective rank of the features (arXiv 2210.02885), with kNN or the fast linear probe."""
    train_images: int
    val_images: int
    crop_share: float

    def as_dict(self) -> dict[str, Any]:
        said = super().as_dict()
        return said.pop("probes") | said


@dataclass(frozen=True, kw_only=True)
class Evaluated(Result):
    """How often a classifier is right, as shares, also by class ({top1, images}); loss is the mean cross-entropy."""

    top1: float
    top5: float
    loss: float
    images: int
    classes: Mapping[str, Mapping[str, Any]]
    skipped: Left


@dataclass(frozen=True, kw_only=True)
class Compared(Result):
    """A page of several runs. differences: of each option whose values differ, and of images, hardware, versions and
    code, its value by run. runs: by run its steps, images, seconds, and the last of each measure."""

    out: str
    differences: Mapping[str, Mapping[str, Any]]
    runs: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Described(Result):
    """A model card: its text, where it was written (None: nowhere), and the licence it names, `unknown` if none was
    given."""

    out: str | None = None
    license: str
    card: str


@dataclass(frozen=True, kw_only=True)
class Classified(Result):
    """The most probable classes of each image: {path, top: [{label, probability}]}, in the order they were named."""

    images: Sequence[Mapping[str, Any]]
    skipped: Left


@dataclass(frozen=True, kw_only=True)
class Embedded(Result):
    """A file of features: of how many images, how wide."""

    out: str
    images: int
    width: int
    skipped: Left


@dataclass(frozen=True, kw_only=True)
class Reconstructed(Result):
    """A picture of reconstructions; masked: the share that was hidden."""

    out: str
    images: int
    masked: float


@dataclass(frozen=True, kw_only=True)
class Served(Result):
    """A page that was served, for so many seconds: where it was, and how often a model answered."""

    url: str
    seconds: float
    answers: int


@dataclass(frozen=True, kw_only=True)
class Inspected(Result):
    """What weights hold: sizes as [height, width] in px, the verbs that take them (`can`) and those that do not, with
    the reason; options that must be given (`needs`), what was taken for granted, what of the file is not used."""

    file: str
    layout: str
    model: str
    image_size: Sequence[int]
    patch_size: Sequence[int] | None
    channels: int
    positions: str
    decoder: str | None
    target: str | None
    parts: Sequence[str]
    parameters: int
    dtype: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]
    crop_share: float | None
    value_range: Sequence[float] | None
    pooling: str | None
    classes: Sequence[str]
    can: Sequence[str]
    cannot: Mapping[str, str]
    needs: Sequence[str]
    assumed: Sequence[str]
    ignored: Sequence[str]
    sha256: str | None = None
    mismatches: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Converted(Result):
    """Weights in another layout; difference: of a graph, the largest one from the model over several batches."""

    out: str
    to: str
    part: str
    difference: float | None = None
    pushed: str | None = None


@dataclass(frozen=True, kw_only=True)
class Suggested(Result):
    """One command, which is `maekit.pretrain(preset, options=options)`, and `reasons`, {words, because, basis}.
    images_per_second: of training, timed here; seconds: of all steps by that; hours: those that were asked for."""

    command: str
    preset: str
    options: Mapping[str, Any]
    reasons: Sequence[Mapping[str, Any]]
    images: int
    looked_at: int
    hours: float
    steps: int
    epochs: float
    batch_size: int
    images_per_second: float
    seconds: float
    device: str
    machine: str


@dataclass(frozen=True, kw_only=True)
class Planned(Result):
    """What a pretraining would take. estimate: on what each part rests; none is measured but the rate, where asked for.

    encoder_parameters: those of `parameters` that stay. gflop: of one image in training. exaflop: of the whole run. lr:
    at its peak; base_lr: per 256 images. checkpoint_gb: of one, on disk."""

    preset: str
    estimate: Mapping[str, str]
    images: int
    steps: int
    epochs: float
    warmup_steps: int
    gpus: int
    batch_size: int
    micro_batch_size: int
    accumulation: int
    lr: float
    base_lr: float
    parameters: int
    encoder_parameters: int
    gflop: float
    exaflop: float
    precision: str
    checkpoint_gb: float
    memory: Sequence[Mapping[str, Any]]
    """GB that a GPU holds at the peak of a step, by way: {parallel, checkpoint_activations, asked, weights, gradients,
    moments, activations, gathered, total}; with --memory also fits, and largest_micro_batch_size, None where not one
    image fits."""
    fits: bool | None = None
    """Whether the run as it was asked for fits into --memory."""
    advice: Sequence[str] = ()
    """What makes it fit that does not: options, each line enough by itself, the cheapest first."""
    images_per_second: float | None = None
    """Of one GPU, stated or measured."""
    hours: float | None = None
    gpu_hours: float | None = None


@dataclass(frozen=True, kw_only=True)
class Packed(Result):
    """A folder of images made smaller. how: of how many what was done: `made smaller`, or their bytes kept, `small
    already` or `not for JPEG`. Bytes are those of the images alone. images_per_second: that one process reads, decodes
    and crops to 224 px, timed on some of them; None where it can read none of them in colour."""

    out: str
    images: int
    how: Mapping[str, int]
    unreadable: Left
    shards: int
    bytes_before: int
    bytes: int
    images_per_second_before: float | None
    images_per_second: float | None


@dataclass(frozen=True, kw_only=True)
class Examined(Result):
    """What a source holds: images, how many were examined, images by class (None where unlabelled); mean and std per
    channel in [0, 1]; sizes in px. What no readable image can tell is None."""

    images: int
    passed_over: Mapping[str, Any]
    """What was met and not taken: {images: {what: count}, beside: {what: count}, notes: [sentence]}."""
    examined: int
    classes: Mapping[str, int] | None
    unreadable: Left
    mean: Sequence[float] | None
    std: Sequence[float] | None
    sizes: Mapping[str, Any] | None
    """Smallest, median and largest width and height, and the most frequent sizes."""
    values: Sequence[Mapping[str, Any]]
    """{kept, low, high, share, images, narrow} of each kind of number: the least and the largest value as stored, the
    share of its range between them, and how many images use less than an eighth of it."""
    modes: Mapping[str, int]
    duplicates: Sequence[Sequence[str]]
    """Groups of paths with equal content."""
    images_per_second: float | None
    """That one process reads, decodes and crops to 224 px."""
    workers_for_rate: int | None
    range: tuple[float, float] | None
    """The stored values that became black and white."""
    near_duplicates: Sequence[Sequence[str]] | None = None
    """Groups of paths of images that look nearly the same, of `val` too; with out or val, as what follows."""
    shared: Sequence[Sequence[str]] | None = None
    """Groups of paths in which images of `val` are together with examined ones: equal, or nearly the same."""
    dark: Sequence[str] | None = None
    blurred: Sequence[str] | None = None
    constant: Sequence[str] | None = None
    """Paths of images of one colour; of very dark, and very blurred ones."""
    freed: int | None = None
    """Bytes removed from the cache folder, where that was asked for."""
