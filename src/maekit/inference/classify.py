"""What a classifier takes images for."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maekit.config.verbs import ClassifyOptions
from maekit.data.sources import Source, Space, open_images, open_source
from maekit.data.sources.joined import JoinedSource
from maekit.engine.distributed import choose_device
from maekit.inference.one_pass import any_unreadable, is_image_file, one_pass, printable, require_finite, skipped
from maekit.models.classifier import Classifier
from maekit.results import Classified
from maekit.sections import Table
from maekit.weights.load import classifier


def classify(options: ClassifyOptions) -> Classified:
    """`maekit classify`: the most probable classes of each image, in the order of the options.

    Unreadable images are skipped; DataError where none can be read.
    """
    source = _all_of(options.images, options)
    model = classifier(options.weights, options).to(choose_device(options.device))
    bad = any_unreadable(source)
    images: list[dict[str, Any]] = []
    for batch in one_pass(source, model, options, bad):
        tops = most_probable(model, batch.images, options.top, options.weights)
        numbers = batch.indices.tolist()
        images += [{"path": source.path(number), "top": top} for number, top in zip(numbers, tops, strict=True)]
    rows = [
        (printable(image["path"]), "  ".join(map("{label} {probability:.1%}".format_map, image["top"])))
        for image in images
    ]
    return Classified(images=images, skipped=skipped(bad), sections=[Table(["image", "class"], rows, align="<")])


@torch.no_grad()
def most_probable(model: Classifier, images: Tensor, most: int, weights: str) -> list[list[dict[str, Any]]]:
    """{label, probability} of so many classes of each image [N, C, H, W], the likeliest first. weights: for errors."""
    logits = model(model.standardise(images.to(model.device)))
    require_finite(logits, weights)
    values, labels = logits.float().softmax(dim=1).topk(min(most, len(model.classes)), dim=1)
    rows = (zip(*row, strict=True) for row in zip(labels.tolist(), values.tolist(), strict=True))
    return [[{"label": model.classes[label], "probability": value} for label, value in row] for row in rows]


def _all_of(words: Sequence[str], options: ClassifyOptions) -> Source:
    """One source of image files, folders, lists and whatever else a word may mean."""
    sources: list[Source] = []
    for is_file, group in groupby(words, key=is_image_file):
        if is_file:
            sources.append(open_images([Path(word).expanduser() for word in group]))
        else:
            sources += [open_source(word, options.image_column, Space.within(options.cache_limit)) for word in group]
    return sources[0] if len(sources) == 1 else JoinedSource(sources)
