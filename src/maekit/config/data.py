"""Where images come from and what is done to them."""

from typing import Literal

from tyro.conf import arg

from maekit.config.objects import Images, text
from maekit.config.schema import HUE, JITTER, RISING, WIDE, WORDS, Annotated, Field, config, part

_Share = Annotated[float, Field(gt=0, le=1)]
_Ratio = Annotated[float, Field(gt=0)]

CACHE_LIMIT, WINDOW = 200.0, 50.0
"""GB, where nothing is said."""


@config
class DataConfig:
    """Training images."""

    source: Annotated[Images, arg(aliases=("--data",)), WORDS] = text("")
    """SOURCE: a folder (of class folders, or of images at any depth), a list file `path, label`, .parquet, tar shards
    (shard-{000..099}.tar), hf:REPO@split, digits:train. The option's name may be left out."""
    normalise: Annotated[Literal["imagenet", "half", "measured", "given"], arg(aliases=("--normalise",))] = "imagenet"
    """How pixels in [0, 1] are standardised. imagenet: its mean and std. half: 0.5 and 0.5. measured: this source's,
    computed before training. given: --mean and --std."""
    mean: Annotated[tuple[float, ...] | None, arg(aliases=("--mean",))] = None
    """Per-channel mean in [0, 1]; with --normalise given."""
    std: Annotated[tuple[float, ...] | None, arg(aliases=("--std",))] = None
    """Per-channel standard deviation; with --normalise given."""
    range: Annotated[Literal["measured"] | tuple[float, float] | None, WIDE] = None
    """The stored values that become black and white, such as 0 4095 for 12 bits in 16; others are clipped, and nothing
    is cut to 8 bits before. measured: the 0.1st and the 99.9th percentile of this source's values, from up to 1,000 of
    its images. None: that of the weights it starts from, else all that the values' type can hold (floating point: 0
    to 1)."""
    image_column: Annotated[str | None, arg(aliases=("--image-column",))] = None
    """Column of parquet, or of the hub's datasets, that holds the images, where several do. None: the only one, or the
    one called image."""
    decode: Literal["full", "reduced"] = "reduced"
    """reduced: of a JPEG with 25 times the pixels of the model's images or more, only a half, a quarter or an eighth of
    them each way is decoded, never fewer than a crop is to have. Crops are the same, their pixels nearly:
    docs/training.md. full: all pixels, as with --data.range, and always where images are judged or used."""
    workers: Annotated[int | None, arg(aliases=("--workers",)), Field(ge=0)] = None
    """Processes that decode images, per device. None: one less than the device's share of the cores, at most 16."""
    bad_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of the source's images that may prove unreadable before the run stops with their names. Above 0, ten always
    may, but never all."""
    fingerprint: Literal["sampled", "full"] = "sampled"
    """How a run that is resumed knows its images again. sampled: by number, names and labels, and of files by the sizes
    of a thousand, evenly spread; another image under an old name is noticed only if it is one of those. full: by the
    size of every file, each of which is looked at before training."""
    cache_limit: Annotated[float, arg(aliases=("--cache-limit",)), Field(ge=0)] = CACHE_LIMIT
    """GB (1e9 bytes) that the cache folder may take: MAEKIT_CACHE, else ~/.cache/maekit. Images in parquet are copied
    there once, where they are more than 256 MiB, to be read in any order. 0: they are not. Files elsewhere are fetched
    to it; those that were used longest ago make room."""
    window: Annotated[float, Field(gt=0)] = WINDOW
    """GB of files elsewhere among which images are shuffled; the order of an epoch depends on it. Where files are more
    than the cache holds, it has to hold three windows."""
    shuffle: bool = True
    """Whether each epoch has an order of its own. Off: the source's order, every epoch."""


@config
class AugmentConfig:
    """What is done to a training image, in this order: crop, flip, RandAugment, colour jitter, erasing, your own."""

    crop: Literal["random", "pad", "center", "none"] = "random"
    """random: random resized crop. pad: pad by an eighth, crop at random (small images). center: resize, then the
    middle. none: resize to the exact size."""
    scale: Annotated[tuple[_Share, _Share], RISING] = (0.2, 1.0)
    """crop random: share of the image's area that is kept."""
    ratio: Annotated[tuple[_Ratio, _Ratio], RISING] = (0.75, 1.3333333333333333)
    """crop random: width over height of the kept part."""
    flip: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Probability of a horizontal flip."""
    randaugment: str = ""
    """timm's RandAugment string such as rand-m9-mstd0.5-inc1; empty: none."""
    color_jitter: Annotated[tuple[Annotated[float, Field(ge=0)], ...], JITTER, HUE] = ()
    """Strengths of random changes of brightness, contrast, saturation and hue (torchvision's ColorJitter): four
    numbers, three without hue, or one for the first three. Hue at most 0.5. Empty: none."""
    color_jitter_prob: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Probability of colour jitter, where it has strengths."""
    erase: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability of random erasing."""
    own: Annotated[str, arg(aliases=("--augment",)), part("augment", "")] = ""
    """module:object: a function of your own, from an image [C, H, W], uint8 or float in [0, 1], to one of that shape
    and type. Python's, NumPy's and torch's generators are seeded for it, by image and epoch. Empty: none."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """Resampling filter, of RandAugment's rotations and shears too; resizing is always antialiased."""
    repeats: Annotated[int, Field(ge=1)] = 1
    """How many crops are made of an image once it is decoded (repeated sampling). A batch counts crops, so an epoch of
    the schedule still sees as many crops as there are images."""


LABEL_FREE: Literal["rankme"] = "rankme"
"""What tells whether a pretraining still improves where images have no labels."""


@config
class ValidationConfig:
    """Held-out images that tell, while training, whether it works."""

    source: Annotated[Images, arg(aliases=("--val",))] = text("")
    """SOURCE of held-out images; empty: none."""
    split: Annotated[float | None, arg(aliases=("--val-split",)), Field(gt=0, lt=1)] = None
    """In place of a source: hold out this share of the training images, of each class alike, drawn by the seed."""
    every: Annotated[float | None, arg(aliases=("--val-every",)), Field(gt=0)] = None
    """Epochs between two validations. None: 20 times a run for pretraining, of a short one fewer, which look at no more
    images than it trains on; for classifiers every epoch, but not more often than every ten steps."""
    images: Annotated[int | None, Field(ge=1)] = None
    """pretraining: images used at most, held-out and training ones each, for features and reconstruction loss. None:
    5000, but fewer, down to 1000, where all validations would take more than a fifth of what training does."""
    lidar_views: Annotated[int | None, Field(ge=2)] = None
    """pretraining: judge features by LiDAR too (arXiv 2312.04000), from so many masked views of each of up to 1,000
    images, which are as many passes of the encoder over what each mask shows. None: not."""
    stop_after: Annotated[int | None, Field(ge=1)] = None
    """pretraining: end the run, as a complete one, when so many validations in a row have not improved on the best
    before them. None: never. A rate that has not fallen by then stays high; --schedule.course cooldown and --branch let
    it fall afterwards."""
    stop_by: Literal["rankme", "alpha", "lidar", "loss", "knn"] = LABEL_FREE
    """What has to improve: rankme (a higher effective rank of the features), alpha (alpha-ReQ nearer to 1), lidar, loss
    (the held-out loss), knn, where there are labels."""
    crop_share: Annotated[float | None, Field(gt=0, le=1)] = None
    """Evaluation resizes the shorter side to image size / this, then takes the centre (224: 256, then 224). None: 0.875
    for images of up to 224 px, 1 for larger ones. It is kept in the weights."""


def crop_share_for(image_hw: tuple[int, int]) -> float:
    """The share of the centre crop where nothing says it, as in the released code of arXiv 2111.06377."""
    return 0.875 if max(image_hw) <= 224 else 1.0
