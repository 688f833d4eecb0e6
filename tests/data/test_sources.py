"""Every source: the same pictures give the same pixels, labels and training batches, whatever form they have."""

import hashlib
import pickle
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from source_forms import CLASSES, FORMS

from maekit.config import AugmentConfig, DataConfig
from maekit.data.decode import decode
from maekit.data.loader import BadImages, train_batches
from maekit.data.sources import Source, open_source


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def source(form: str, in_every_form: dict[str, str]) -> Source:
    return open_source(in_every_form[form])


def batch_digest(source: Source, workers: int, decode: Literal["full", "reduced"] = "reduced") -> str:
    batches = train_batches(
        source,
        DataConfig(workers=workers, decode=decode),
        AugmentConfig(),
        image_hw=(16, 16),
        channels=3,
        seed=1,
        batch_size=8,
        micro_batch=4,
        start_step=0,
        total_steps=3,
        rank=0,
        world_size=1,
        bad=BadImages(source, 0.0),
    )
    digest = hashlib.sha256()
    for batch in batches:
        digest.update(batch.images.numpy().tobytes() + batch.labels.numpy().tobytes())
    return digest.hexdigest()


def test_same_images_and_labels_in_every_form(source: Source, photos: Path) -> None:
    files = sorted(photos.rglob("*.*"))
    assert len(source) == len(files)
    for index, file in enumerate(files):
        assert source.label(index) == CLASSES.index(file.parent.name)
        assert (decode(source.read(index), 3) == decode(file.read_bytes(), 3)).all()


def test_classes_have_names_where_the_form_has_them(source: Source, form: str) -> None:
    assert source.classes == (("0", "1") if form in ("list", "shards", "pairs", "shards elsewhere") else CLASSES)


def test_same_training_batches_in_every_form(source: Source, form: str, in_every_form: dict[str, str]) -> None:
    folder = open_source(in_every_form["folder"])
    assert batch_digest(source, 0, "full") == batch_digest(folder, 0, "full")
    if form != "pictures":  # of which all pixels are decoded already
        assert batch_digest(source, 0) == batch_digest(folder, 0)


def test_worker_processes_read_it(source: Source) -> None:
    source.read(3)  # what is open or kept here must not disturb the workers
    assert batch_digest(source, 2) == batch_digest(source, 0)


def test_survives_pickling(source: Source) -> None:
    source.read(0)
    copy = pickle.loads(pickle.dumps(source))
    for index in range(len(copy)):
        assert np.array_equal(copy.read(index), source.read(index))
    assert copy.fingerprint() == source.fingerprint()


def test_paths_are_distinct_and_fingerprint_is_stable(source: Source, form: str, in_every_form: dict[str, str]) -> None:
    assert len({source.path(index) for index in range(len(source))}) == len(source)
    assert open_source(in_every_form[form]).fingerprint() == source.fingerprint()
