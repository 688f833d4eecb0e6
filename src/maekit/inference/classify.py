"""What a classifier takes images for."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from maekit.config.verbs import ClassifyOptions
from maekit.data.sources import Source, Space, open_images, open_source
from maekit.data.sources.joined import JoinedSource
from maekit.engine.distributed import choose_device
from maekit.inference.one_pass import any_unreadable, is_image_file, one_pass, printable, require_finite, skipped
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
    count = min(options.top, len(model.classes))
    images: list[dict[str, Any]] = []
    for batch in one_pass(source, model, options, bad):
        with torch.no_grad():
            logits = model(model.standardise(batch.images.to(model.device)))
        require_finite(logits, options.weights)
        probabilities, numbers = logits.float().softmax(dim=1).topk(count, dim=1)
        for index, values, labels in zip(batch.indices.tolist(), probabilities.tolist(), numbers.tolist(), strict=True):
            guesses = zip(labels, values, strict=True)
            top = [{"label": model.classes[label], "probability": value} for label, value in guesses]
            images.append({"path": source.path(index), "top": top})
    rows = [
        (printable(image["path"]), "  ".join(map("{label} {probability:.1%}".format_map, image["top"])))
        for image in images
    ]
    return Classified(images=images, skipped=skipped(bad), sections=[Table(["image", "class"], rows, align="<")])


def _all_of(words: Sequence[str], options: ClassifyOptions) -> Source:
    """One source of image files, folders, lists and whatever else a word may mean."""
    sources: list[Source] = []
    for is_file, group in groupby(words, key=is_image_file):
        if is_file:
            sources.append(open_images([Path(word).expanduser() for word in group]))
        else:
            sources += [open_source(word, options.image_column, Space.within(options.cache_limit)) for word in group]
    return sources[0] if len(sources) == 1 else JoinedSource(sources)
