"""Everything `maekit probe` can be told."""

from dataclasses import KW_ONLY
from typing import Literal

from maekit.config.objects import Images, Weights, text
from maekit.config.schema import DEVICE, WORDS, Annotated, Field, config, part, verb
from maekit.config.verbs import ColumnOptions, WeightsOptions

_Kind = Annotated[str, part("probe", "knn", "linear", "attentive", "efficient")]


@config
class ProbeConfig:
    """How frozen features are judged."""

    kinds: Annotated[tuple[_Kind, ...], Field(min_length=1)] = ("knn", "linear", "attentive")
    """knn: votes of the nearest training images. linear: one linear layer. attentive: one learned query that attends to
    the patch tokens, then a linear layer. efficient: several such queries, each gathering channels of its own (arXiv
    2506.10178). module:object: your own, a function of features [N, D], labels [N], features to judge [M, D] and the
    number of classes, to labels [M]. Short: --probe."""
    features: tuple[Literal["pooled", "class"], ...] = ()
    """pooled: the mean of the patch tokens. class: the class token. Empty: pooled, and for --linear paper the class
    token where there is one."""
    blocks: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1,)
    """Features are the mean over the outputs of so many last blocks; several numbers are several rows."""
    sweep: bool = False
    """All features this encoder has, of its last 1, 2 and 4 blocks. Replaces --features and --blocks."""
    per_class: Annotated[int | None, Field(ge=1)] = None
    """Few-shot: training images used per class, drawn by the seed; None: all."""
    linear: Literal["fast", "paper"] = "fast"
    """fast: features computed once of centre crops, logistic regression by L-BFGS, weight decay chosen on a held-out
    part of the training images. paper: arXiv 2111.06377's, by LARS over random crops; made for a million images, on few
    it ends long before it has learnt."""
    neighbours: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """knn: numbers of neighbours. Empty: those of 10, 20, 100 and 200 that the training images allow. 20 is the one
    reported where it is tried, else the first."""
    temperature: Annotated[float, Field(gt=0)] = 0.07
    """knn: a neighbour's vote is exp(cosine similarity / temperature)."""
    queries: Annotated[int, Field(ge=1)] = 32
    """efficient: learned queries; where they do not divide the features' width, the next fewer that do."""
    epochs: Annotated[float | None, Field(gt=0)] = None
    """paper, attentive and efficient: passes over the training images. None: the paper's 90; the others 30, but at
    least 1000 steps."""
    batch_size: Annotated[int | None, Field(ge=2)] = None
    """paper, attentive and efficient: images per step, at most those that there are. None: the paper's 16384; the
    others 256."""
    base_lr: Annotated[float | None, Field(gt=0)] = None
    """paper, attentive and efficient: learning rate per 256 images of the batch. None: the paper's 0.1; the others
    0.003."""
    trust_coefficient: Annotated[float, Field(gt=0)] = 0.001
    """paper: by which LARS multiplies a matrix's norm over its gradient's."""
    token_memory: Annotated[float, Field(ge=0)] = 4.0
    """attentive and efficient: gigabytes that the training images' patch tokens may take, twice that for a moment. More
    than this, and they are computed anew in every pass."""
    crop_share: Annotated[float | None, Field(gt=0, le=1)] = None
    """The shorter side is resized to image size / this, then the centre is taken. None: as W was validated where
    W says so, as what maekit trained does, else 0.875 for images of up to 224 px and 1 for larger ones."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Fixes what is held out, few-shot draws, order, crops and initial weights."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the encoder's pass. auto: bf16 on a GPU that has it, else fp16 on a GPU, else fp32."""
    micro_batch_size: Annotated[int, Field(ge=2)] = 256
    """Most images per pass, over all devices where a probe is trained, whose BatchNorm sees so many at a time."""
    workers: Annotated[int | None, Field(ge=0)] = None
    """Processes that decode images. None: one less than the cores, at most 16."""
    bad_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of a source's images that may prove unreadable. Above 0, ten always may, but never all."""


@verb
class ProbeOptions(ProbeConfig, WeightsOptions, ColumnOptions):
    """Judge a frozen encoder: nearest neighbours, a linear layer, attentive queries.

    Of a run's weights, what is found is kept in its folder and shown in its report.
    """

    weights: Weights
    """W with an encoder; a classifier's or a masked autoencoder's will do."""
    data: Annotated[Images, WORDS]
    """Labelled SOURCE to learn from. The option's name may be left out."""
    _: KW_ONLY
    val: Images = text("")
    """Labelled SOURCE to be judged on, of the same classes."""
    val_split: Annotated[float | None, Field(gt=0, lt=1)] = None
    """In place of --val: hold out this share of the images, of each class alike, drawn by the seed."""
    device: Annotated[str, DEVICE] = "auto"
    """auto (cuda, then cpu), cpu, cuda, cuda:N, mps."""
