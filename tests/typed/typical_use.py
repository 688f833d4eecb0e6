"""Typical use, typed as a user would type it: `make check` holds it to mypy's and pyright's strict modes."""

from dataclasses import replace
from pathlib import Path

import torch
from timm.models import VisionTransformer
from torch import Tensor, nn

import maekit
from maekit import masking, presets
from maekit.config import MaskConfig, PretrainConfig
from maekit.sklearn import Embedder

STEPS = 2000


def pretrained(images: Path, out: Path) -> str:
    """A run folder, by a config of one's own."""
    preset: PretrainConfig = presets.PRETRAIN["vit-tiny-small-data"]()
    config = replace(
        preset,
        data=replace(preset.data, source=str(images), workers=0),
        mask=MaskConfig(kind="block", ratio=0.6),
        schedule=replace(preset.schedule, steps=STEPS),
        run=replace(preset.run, out=str(out)),
    )
    run = maekit.pretrain(config)
    print(run.loss, run.steps, run.complete)
    return str(run.run)


def shortly(images: list[Path], out: Path) -> float:
    """Verbs by keywords: a look, a plan, pretraining, features in a file, a suggestion."""
    print(maekit.data(images, workers=0).sizes)
    print(maekit.plan("vit-tiny-small-data", data=images, gpus=2, memory=16, rate=100.0).advice)
    run = maekit.pretrain("vit-tiny-small-data", data=images, out=out, steps=STEPS, workers=0)
    embedded = maekit.embed(str(run.run), images, out=out / "features.npz", workers=0)
    print(embedded.width, maekit.inspect(out).can)
    return maekit.suggest(images, hours=0.5).seconds


def features(weights: str | Path, images: Tensor) -> Tensor:
    """images: [N, C, H, W] in [0, 1]."""
    model = maekit.load(weights)
    height, width = model.config.image_hw
    print(height, width, model.config.channels, model.device, model.width)
    patches = model.features(images, "patches", blocks=2)
    return torch.cat([model.features(images), patches.mean(dim=1)], dim=1)


def painted(weights: str, images: Tensor) -> Tensor:
    """Half of each image's patches hidden, and painted."""
    model = maekit.load(weights)
    if not isinstance(model, maekit.MaskedAutoencoder):
        raise maekit.MaekitError(f"{weights}: has no decoder")
    rows, columns = model.grid
    masked = torch.rand(len(images), rows * columns).argsort(dim=1) < rows * columns // 2
    drawn = masking.draw(MaskConfig(ratio=0.5), model.grid, torch.arange(len(images)))
    prediction = model(model.standardise(images), drawn)
    print(prediction.patches.shape, prediction.index.shape)
    return maekit.reconstruct(model, images, masked)


def frozen(weights: str, blocks: int) -> int:
    """How many parameters go on learning where the first blocks do not."""
    encoder = maekit.load(weights).encoder
    if isinstance(encoder, VisionTransformer):
        for block in encoder.blocks[:blocks]:
            block.requires_grad_(False)
    return sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad)


class Head(nn.Module):
    """A linear layer on an encoder that goes on learning."""

    def __init__(self, weights: str, classes: int) -> None:
        super().__init__()
        self.pretrained = maekit.load(weights)
        self.head = nn.Linear(self.pretrained.width, classes)

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.pretrained.encoder(self.pretrained.standardise(images))
        logits: Tensor = self.head(tokens)
        return logits


def labels(weights: str, images: Tensor) -> list[str]:
    """The likeliest class of each image."""
    model = maekit.load(weights)
    if not isinstance(model, maekit.Classifier):
        return []
    logits = model(model.standardise(images))
    return [model.classes[int(best)] for best in logits.argmax(dim=1)]


def embedded(weights: str, paths: list[Path]) -> int:
    """The width of features for scikit-learn."""
    found = Embedder(weights, tokens="class", batch_size=8).fit(paths).transform(paths)
    return int(found.shape[1])
