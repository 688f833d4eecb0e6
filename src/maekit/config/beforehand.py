"""What can be told of options before anything is loaded: torch, images or weights."""

import os
import re
from pathlib import Path, PurePath
from typing import Any

from maekit.config.classify import ClassifyConfig
from maekit.config.data import AugmentConfig, DataConfig
from maekit.config.model import ModelConfig, check_divides
from maekit.config.pretrain import PretrainConfig
from maekit.config.schema import size
from maekit.config.verbs import ConvertOptions, DataOptions, EmbedOptions, EvaluateOptions, ReconstructOptions
from maekit.errors import UsageError

_PICTURE = ((".png", ".jpg", ".jpeg"), "a picture is written as .png or .jpg")
_WRITTEN: dict[type[Any], tuple[str, tuple[str, ...], str]] = {
    ReconstructOptions: ("out", *_PICTURE),
    DataOptions: ("picture", *_PICTURE),
    EmbedOptions: ("out", (".npz", ".parquet"), "features are written as .npz or .parquet"),
    EvaluateOptions: ("confusion", (".svg",), "the confusion picture is written as .svg"),
}
"""Of verbs that write a file of one kind: its option, the suffixes it may have, and what is said of others."""
_WEIGHTS_FILE = ".safetensors"
_FILE_SUFFIXES = {"facebook": ".pth", "onnx": ".onnx", "torch-export": ".pt2"}
_FOLDERS_OR_FILES = ("maekit", "timm")
_ANY_SUFFIXES = (*_FILE_SUFFIXES.values(), _WEIGHTS_FILE, ".pt", ".bin")


def check_training(config: PretrainConfig | ClassifyConfig, world_size: int = 1) -> None:
    """What can be told of a training before its images are counted.

    Raises UsageError for options that fit nothing, as where nothing says how fast or how long it learns, RunError for a
    batch that does not divide, ModelError for an image size that a ViT's patches do not divide.
    """
    run = config.run
    if run.overwrite and run.branch and Path(run.out).resolve() in Path(run.branch).resolve().parents:
        raise UsageError(f"--branch {run.branch}: lies in --out, which --overwrite empties; give another --out")
    if run.parallel == "fsdp" and (reason := undivided(config)):
        raise UsageError(f"run.parallel fsdp: {reason}")
    config.optimizer.actual_lr(config.schedule.images_a_step)
    if config.schedule.total_steps(1) < 1:
        raise UsageError("schedule: this run would take no optimizer step; give more --steps or --epochs")
    config.schedule.milestone_steps(1)
    config.schedule.sizes((1, 1), 1)
    schedule, micro_batch = config.schedule, config.schedule.micro_batch_size
    if schedule.batch_size is not None:  # else it is chosen, by the images, so that it divides
        micro_batch = schedule.micro_batch(world_size)
    if config.data.normalise == "given":
        given_standardisation(config.data, None if config.model is None else config.model.channels)
    if config.model is not None:
        _check_vit(config.model)
        check_augment(config.augment, config.model.channels)
        check_normalise(config.data, config.model.channels)
    if isinstance(config, PretrainConfig):
        validation, decoder = config.validation, config.model.decoder
        if validation.stop_after and validation.stop_by == "lidar" and validation.lidar_views is None:
            raise UsageError("validation.stop_by: lidar is not measured; add --validation.lidar-views 10")
        if decoder.kind != "linear" and decoder.width % decoder.heads:
            raise UsageError(f"model.decoder.heads: {decoder.heads} do not divide the decoder's width {decoder.width}")
    elif micro_batch is not None:
        check_mixing(config, micro_batch)


def undivided(config: PretrainConfig | ClassifyConfig) -> str:
    """Why weights cannot be divided between processes; empty where they can."""
    if config.optimizer.name in ("lars", "muon"):
        return f"divides matrices that {config.optimizer.name} needs whole; take ddp, or adamw"
    if config.schedule.resolutions:
        return "models of several --schedule.resolutions share whole weights; take ddp"
    return ""


def check_mixing(config: ClassifyConfig, micro_batch: int) -> None:
    """Raises UsageError where images cannot be mixed in pairs. micro_batch: images per device and pass."""
    if (config.mix.mixup or config.mix.cutmix) and micro_batch % 2:
        raise UsageError(
            f"mix: mixing needs an even number of images a pass, not {micro_batch}; set --micro-batch-size"
        )


def given_standardisation(data: DataConfig, channels: int | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """--mean and --std. Raises UsageError where one is missing or does not fit the channels, where those are known."""
    for option, values in (("--mean", data.mean), ("--std", data.std)):
        if values is None:
            count = "as many numbers as channels" if channels is None else f"{channels} numbers"
            raise UsageError(f"data.normalise: given, but {option} is not; it takes {count}")
        if channels is not None and len(values) != channels:
            raise UsageError(f"{option}: {len(values)} numbers for images of {channels} channels")
    if data.mean is None or data.std is None or min(data.std, default=0) <= 0:
        raise UsageError("--std: has to be above 0 in every channel")
    return data.mean, data.std


def check_augment(augment: AugmentConfig, channels: int) -> None:
    """Raises UsageError where this cannot be done to images of that many channels."""
    if augment.randaugment and channels != 3:
        raise UsageError(f"augment.randaugment: works on 3 channels, the images have {channels}; leave it empty")
    if augment.color_jitter and augment.color_jitter_prob and channels not in (1, 3):
        raise UsageError(f"augment.color_jitter: works on 1 or 3 channels, the images have {channels}; leave it empty")


def check_normalise(data: DataConfig, channels: int) -> None:
    """Raises UsageError where ImageNet's mean is asked for and there is none for that many channels."""
    if data.normalise == "imagenet" and channels not in (1, 3):
        raise UsageError(
            f"data.normalise: imagenet has no mean for {channels} channels; use --normalise measured, or --normalise "
            "given"
        )


def _check_vit(model: ModelConfig) -> None:
    name = re.match(r"vit_\w*?_patch(\d+)_", model.encoder)
    if name is None:
        return
    patch = size(model.patch_size) if model.patch_size is not None else (int(name[1]),) * 2
    check_divides(model.image_hw, patch)
    if model.width and model.heads and model.width % model.heads:
        raise UsageError(f"model.heads: {model.heads} do not divide the encoder's width {model.width}")


def check_files(options: Any) -> None:
    """Raises UsageError where a file's name is of no format that the verb writes, or belies it."""
    if isinstance(options, ConvertOptions):
        check_conversion(options)
    if type(options) in _WRITTEN:
        option, suffixes, says = _WRITTEN[type(options)]
        path = getattr(options, option)
        suffix = PurePath(path).suffix.lower()
        if suffix not in suffixes and (path or option == "out"):  # which has to be given
            raise UsageError(f"{path}: {says}, not as {suffix or 'no suffix'}")


def check_apart(source: str, out: str) -> None:
    """Raises UsageError where a folder to write would lie among the images that are read."""
    folder = Path(os.path.expanduser(source))  # noqa: PTH111 - which leaves the ~ of nobody as it is
    if folder.is_dir() and Path(out).resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"--out {out}: lies in {source}, whose images are read; choose a folder beside it")


def check_conversion(options: ConvertOptions) -> None:
    """Raises UsageError where the name to write would belie what is written, or what to push to is no repository."""
    path, layout = Path(options.out), options.to
    suffix, wanted = path.suffix, _FILE_SUFFIXES.get(layout)
    if wanted and suffix != wanted:
        raise UsageError(f"--out {path}: --to {layout} writes one {wanted} file; name it {wanted}")
    file = suffix == _WEIGHTS_FILE and layout in _FOLDERS_OR_FILES
    if not wanted and not file and suffix in _ANY_SUFFIXES:
        form = f"a folder or one {_WEIGHTS_FILE} file" if layout in _FOLDERS_OR_FILES else "a folder"
        raise UsageError(f"--out {path}: --to {layout} writes {form}; leave {suffix} out")
    if options.push and not options.push.startswith("hf:"):
        raise UsageError(f"--push {options.push}: is written hf:OWNER/NAME")
