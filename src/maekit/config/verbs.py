"""Options of the verbs that use a model rather than train one. A verb's function has them as its parameters."""

from dataclasses import KW_ONLY
from typing import Literal

from tyro.conf import arg

from maekit.config.data import CACHE_LIMIT
from maekit.config.objects import Images, PathText, SeveralImages, SeveralPaths, SeveralWeights, Weights, text
from maekit.config.schema import (
    DEVICE,
    ENCODER,
    PART_NAME,
    POSITIVE,
    WIDE,
    WORDS,
    Annotated,
    Field,
    MaybeSize,
    config,
    verb,
)


@config
class DeviceOptions:
    """Where a model is used."""

    device: Annotated[str, DEVICE] = "auto"
    """auto (cuda, then cpu), cpu, cuda, cuda:N, mps."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Images per pass."""
    workers: Annotated[int | None, Field(ge=0)] = None
    """Processes that decode; None: one less than the cores."""


@config
class WeightsOptions:
    """What foreign weights leave unsaid."""

    encoder: Annotated[str, ENCODER] = ""
    """timm name of the encoder, where a layout does not tell."""
    heads: Annotated[int | None, Field(ge=1)] = None
    """The encoder's attention heads, where a layout does not tell."""
    decoder_heads: Annotated[int | None, Field(ge=1)] = None
    """The decoder's attention heads, where a layout does not tell."""
    target: Literal["raw", "normalised"] | None = None
    """What the decoder predicts, where a layout does not tell: pixels, or pixels normalised within their patch."""
    image_size: Annotated[MaybeSize, POSITIVE] = None
    """Use the model at this size instead of its own (with --resample-positions). Where a layout does not tell its own
    size, or images are not square: that size."""
    resample_positions: bool = False
    """Resample position embeddings to --image-size."""
    window: Annotated[int | None, Field(ge=1)] = None
    """Give a Swin attention windows of this many patches; its position biases are resampled. None: as they are."""
    channels: Annotated[int | None, Field(ge=1)] = None
    """Inflate or average the patch embedding to this many channels."""
    parts: tuple[Annotated[str, PART_NAME], ...] = ()
    """Your own parts, module:object, that W names: no code is imported because of a file."""


@config
class ColumnOptions:
    """Where the images of a table are, and how much is kept of files elsewhere."""

    image_column: str | None = None
    """Column of parquet, or of the hub's datasets, that holds the images, where several do."""
    cache_limit: Annotated[float, Field(ge=0)] = CACHE_LIMIT
    """GB that the cache folder may take: MAEKIT_CACHE, else ~/.cache/maekit. Files elsewhere are fetched to it."""


@config
class SeenOptions(WeightsOptions, DeviceOptions, ColumnOptions):
    """How a model sees whole images."""

    crop_share: Annotated[float | None, Field(gt=0, le=1)] = None
    """The shorter side is resized to image size / this, then the centre is taken. None: as W was validated where
    W says so, as what maekit trained does, else 0.875 for images of up to 224 px and 1 for larger ones."""


@verb
class SuggestOptions(ColumnOptions):
    """One pretraining command for these images and this machine, with the reasons."""

    source: Annotated[Images, arg(name="data"), WORDS]
    """SOURCE to pretrain on. The option's name may be left out."""
    _: KW_ONLY
    hours: Annotated[float, Field(gt=0)] = 8.0
    """Hours that the run may take at most: the preset's own length, or what fits."""
    device: Annotated[str, DEVICE] = "auto"
    """auto (cuda, then cpu), cpu, cuda, cuda:N, mps."""


@verb
class DemoOptions:
    """The whole story on scikit-learn's digits."""

    _: KW_ONLY
    out: PathText = text("runs/demo")
    """Run folder."""
    overwrite: bool = False
    """Start anew in a folder that holds a run; what that run wrote is removed."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of pretraining, and the first of the few-label draws."""
    seeds: Annotated[int, Field(ge=1)] = 3
    """Draws of few labels."""
    per_class: Annotated[int, Field(ge=1)] = 5
    """Labels per class in the comparison with training from scratch."""
    steps: Annotated[int, Field(ge=1)] = 2400
    """Pretraining steps; with the default the whole demo takes about three minutes on two cores. The preset itself has
    3,818."""
    few_label_steps: Annotated[int | None, Field(ge=1)] = None
    """Steps of each training with few labels; None: the preset's."""


@verb
class DataOptions:
    """Look at images before training on them."""

    source: Annotated[Images, arg(name="data"), WORDS] = text("")
    """SOURCE to examine. The option's name may be left out."""
    _: KW_ONLY
    channels: Annotated[int, Field(ge=1)] = 3
    """Channels the images are decoded to."""
    image_column: str | None = None
    """Column of parquet, or of the hub's datasets, that holds the images, where several do. None: the only one, or the
    one called image."""
    cache_limit: Annotated[float, Field(ge=0)] = CACHE_LIMIT
    """GB that the cache folder may take: MAEKIT_CACHE, else ~/.cache/maekit. Files elsewhere are fetched to it."""
    range: Annotated[Literal["measured"] | tuple[float, float] | None, WIDE] = None
    """The stored values that become black and white, as --data.range in training; measured: of this source."""
    images: Annotated[int | None, Field(ge=1)] = None
    """Examine this many images, evenly spread; None: all."""
    picture: PathText = text("")
    """Write a picture of the spread of sizes and modes to this path."""
    out: PathText = text("")
    """Write what was found to this page (.html), with thumbnails: a sample, near duplicates, dark or blurred."""
    val: Images = text("")
    """SOURCE of held-out images: those that are among the examined ones too, exactly or nearly, are named."""
    rate: Annotated[float, Field(gt=0)] = 1000.0
    """Images per second that training would want; the answer says how many workers feed it."""
    workers: Annotated[int | None, Field(ge=0)] = None
    """Processes that examine; None: one less than the cores."""
    clear_cache: bool = False
    """Remove what is in the cache folder: copies of images in parquet, and of files elsewhere. Without SOURCE, no more
    is done."""


@verb
class PackOptions(ColumnOptions):
    """Make images smaller once, before training on them."""

    source: Annotated[Images, arg(name="data"), WORDS]
    """SOURCE to pack. The option's name may be left out."""
    _: KW_ONLY
    out: PathText
    """Folder to write, which is a SOURCE with the same labels, classes and order."""
    short_side: Annotated[int, Field(ge=8)] = 256
    """Pixels of the shorter side, of images whose shorter side is longer. Crops of fewer pixels than the model takes
    are enlarged: for all of the default crops to have them, twice its image size is enough."""
    quality: Annotated[int, Field(ge=1, le=100)] = 90
    """Of the JPEGs that are written (4:2:0). Images that are small already keep their bytes, and so do arrays and
    those of more than 8 bits."""
    to: Literal["tar", "parquet"] = "tar"
    """Files to write: tar shards in WebDataset's layout, or parquet in the hub's."""
    shards: Annotated[int | None, Field(ge=1)] = None
    """How many files; None: one for each 4,096 images."""
    workers: Annotated[int | None, Field(ge=0)] = None
    """Processes that decode; None: one less than the cores."""


@verb
class ReconstructOptions(WeightsOptions, DeviceOptions, ColumnOptions):
    """Masked, reconstruction and original, side by side."""

    weights: Weights
    """W with a decoder."""
    images: Annotated[SeveralImages, arg(name="data"), WORDS, Field(min_length=1)]
    """Image files, a row each; or a SOURCE, of which --rows are shown. The option's name may be left out."""
    _: KW_ONLY
    out: PathText
    """Picture to write (.png or .jpg)."""
    mask_ratio: Annotated[float | None, Field(gt=0, lt=1)] = None
    """Share that is hidden; None: as in pretraining."""
    mask: PathText = text("")
    """A small black and white picture: white is hidden. Replaces the random mask."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the random mask."""
    rows: Annotated[int | None, Field(ge=1)] = None
    """Images shown of a SOURCE, evenly spread over it; None: 6."""
    statistics: Literal["original", "visible"] = "visible"
    """Normalised-pixel models: where each hidden patch's mean and spread come from. original: the hidden pixels
    themselves, a leak. visible: the visible neighbours."""


@verb
class EvaluateOptions(SeenOptions):
    """Top-1, top-5, loss and a per-class table of a classifier."""

    weights: Weights
    """W of a classifier."""
    data: Annotated[Images, WORDS]
    """Labelled SOURCE. The option's name may be left out."""
    _: KW_ONLY
    confusion: PathText = text("")
    """Write the confusion picture to this path (.svg; up to 30 classes)."""


@verb
class ClassifyOptions(SeenOptions):
    """Predictions with probabilities."""

    weights: Weights
    """W of a classifier."""
    images: Annotated[SeveralImages, arg(name="data"), WORDS, Field(min_length=1)]
    """Image files and SOURCEs, any number of either. The option's name may be left out."""
    _: KW_ONLY
    top: Annotated[int, Field(ge=1)] = 5
    """Labels per image."""


@verb
class EmbedOptions(SeenOptions):
    """Features of images, to a file."""

    weights: Weights
    """W with an encoder."""
    data: Annotated[Images, WORDS]
    """SOURCE. The option's name may be left out."""
    _: KW_ONLY
    out: PathText
    """File to write: .npz or .parquet with path, label and vector."""
    tokens: Literal["pooled", "class", "patches"] = "pooled"
    """pooled: the mean of the patch tokens; of a classifier with mean pooling, what its head sees. class: the class
    token. patches: all patch tokens."""
    blocks: Annotated[int, Field(ge=1)] = 1
    """Mean over the outputs of so many last blocks."""
    picture: PathText = text("")
    """Also write a picture (.png or .jpg) of six images, evenly spread, with their patch features as colours."""


@verb
class AppOptions(SeenOptions):
    """A page to hide parts of a picture on, and to see what models make of the rest."""

    weights: Annotated[SeveralWeights, WORDS, Field(min_length=1, max_length=6)]
    """W, or several to compare under one mask. The option's name may be left out."""
    _: KW_ONLY
    gallery: Images = text("")
    """SOURCE whose images can be taken, and among which the nearest ones to a picture are looked for."""
    gallery_images: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Images of the gallery at most, evenly spread over it."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8765
    """Port to serve at; 0: any that is free."""
    host: str = "127.0.0.1"
    """Address to serve at. One that other machines can reach asks them for the token in the link that is printed."""
    seconds: Annotated[float | None, Field(gt=0)] = None
    """Serve so long; None: until Ctrl-C."""


@verb
class WatchOptions:
    """A run's report while the run goes on."""

    run: Annotated[PathText, WORDS]
    """Run folder. The option's name may be left out."""
    _: KW_ONLY
    port: Annotated[int, Field(ge=0, le=65535)] = 8766
    """Port of this machine to serve at; 0: any that is free."""
    seconds: Annotated[float | None, Field(gt=0)] = None
    """Serve so long; None: until Ctrl-C."""


@verb
class CompareOptions:
    """Several runs side by side."""

    runs: Annotated[SeveralPaths, WORDS, Field(min_length=1)]
    """Run folders, two to twelve. The option's name may be left out."""
    _: KW_ONLY
    out: PathText
    """Page to write (.html)."""


@verb
class CardOptions:
    """A model card for the Hugging Face hub, of what a run folder tells."""

    run: Annotated[PathText, WORDS]
    """Run folder with its weights. The option's name may be left out."""
    _: KW_ONLY
    out: PathText = text("")
    """File to write, such as README.md. Empty: the card is printed."""
    license: str = ""
    """On what terms the weights may be used, by the hub's short name, such as apache-2.0. Empty: unknown, as the card
    says then."""
    probe: SeveralPaths = text(())
    """Files with answers of maekit probe --json about these weights, whose numbers the card has beside those that the
    run folder keeps."""


@verb
class InspectOptions(WeightsOptions):
    """What a checkpoint holds and what it can do."""

    weights: Annotated[Weights, WORDS]
    """W to read. The option's name may be left out."""
    _: KW_ONLY
    hash: bool = False
    """Also the file's SHA-256."""
    config: PathText = text("")
    """A preset or saved config to compare with: the first mismatches are listed."""


@verb
class ConvertOptions(WeightsOptions):
    """Write weights in another layout."""

    weights: Annotated[Weights, WORDS]
    """W to read. The option's name may be left out."""
    _: KW_ONLY
    to: Literal["maekit", "timm", "huggingface", "facebook", "onnx", "torch-export"]
    """Layout to write."""
    out: PathText
    """File; a folder for huggingface, and for maekit and timm where it does not end in .safetensors."""
    part: Literal["auto", "encoder", "classifier", "reconstructor"] = "auto"
    """What is written. auto: all that the weights hold, or, to timm, all but the decoder."""
    push: str = ""
    """Also upload what was written to this hub repository (hf:REPO)."""
