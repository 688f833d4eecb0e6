"""Small classifiers, built in a moment, and batches as the verbs see them."""

import torch
from torch.nn import functional as F

from maekit.config import ClassifierConfig
from maekit.data.loader import BadImages, Batch, eval_batches
from maekit.data.sources import open_source
from maekit.models import classifier
from maekit.models.classifier import Classifier
from maekit.models.encoder import ImageEncoder
from tiny import model_config

DIGIT_PIXELS = {"image_size": 8, "patch_size": 2, "channels": 1, "width": 16, "depth": 2}
CROP_SHARE = 0.875


def batches(source: str, model: ImageEncoder, *, batch_size: int = 64) -> list[Batch]:
    """All images of a source, as the verbs see them."""
    opened = open_source(source)
    return list(
        eval_batches(
            opened,
            indices=None,
            image_hw=model.config.image_hw,
            channels=model.config.channels,
            crop_share=CROP_SHARE,
            batch_size=batch_size,
            workers=0,
            bad=BadImages(opened, 1.0),
        )
    )


def digit_classifier(pooling: str = "mean") -> Classifier:
    """A random encoder under a head fitted to digits:train by least squares: right more often than not."""
    settings = ClassifierConfig(pooling=pooling)
    names = tuple(str(digit) for digit in range(10))
    model = classifier.build(model_config(**DIGIT_PIXELS), settings, names, mean=(0.5,), std=(0.5,), seed=0).eval()
    seen = batches("digits:train", model, batch_size=512)
    labels = torch.cat([batch.labels for batch in seen])
    with torch.no_grad():
        kind = "pooled" if pooling == "mean" else "class"
        inputs = torch.cat([model.features(batch.images, kind) for batch in seen])
        solution = torch.linalg.lstsq(F.pad(inputs, (0, 1), value=1.0), F.one_hot(labels, 10).float()).solution
        model.head.weight.copy_(5 * solution[:-1].T)
        model.head.bias.copy_(5 * solution[-1])
    return model


def photo_classifier(classes: tuple[str, ...]) -> Classifier:
    """A random classifier of colour pictures that is sure of itself."""
    settings = ClassifierConfig(pooling="mean", head_std=1.0)
    half = (0.5,) * 3
    return classifier.build(model_config(image_size=16), settings, classes, mean=half, std=half, seed=1).eval()
