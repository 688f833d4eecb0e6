"""Small models as files."""

from pathlib import Path

import numpy as np
import pytest
from classifiers import DIGIT_PIXELS, digit_classifier, photo_classifier

from maekit.config import MaskConfig, TargetConfig
from maekit.models.classifier import Classifier
from maekit.models.encoder import ImageEncoder
from maekit.models.mae import MaskedAutoencoder
from maekit.weights import native
from tiny import decoder_config, model_config


@pytest.fixture(scope="session")
def digits_model() -> Classifier:
    return digit_classifier()


@pytest.fixture(scope="session")
def digits_weights(digits_model: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits") / "model.safetensors"
    native.save(digits_model, path)
    return path


@pytest.fixture(scope="session")
def photos_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of the photos whose classes stand in another order than the folders'."""
    path = tmp_path_factory.mktemp("photos") / "model.safetensors"
    native.save(photo_classifier(("smooth", "rough")), path)
    return path


@pytest.fixture(scope="session")
def encoder_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder alone, of digits, without a class token."""
    path = tmp_path_factory.mktemp("encoder") / "model.safetensors"
    native.save(ImageEncoder(model_config(**DIGIT_PIXELS, class_token=False), mean=(0.5,), std=(0.5,)), path)
    return path


@pytest.fixture(scope="session")
def mae_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mae") / "model.safetensors"
    config = model_config(**DIGIT_PIXELS, decoder=decoder_config(depth=1))
    target = TargetConfig(kind="raw")
    native.save(MaskedAutoencoder(config, target, MaskConfig(), mean=(0.5,), std=(0.5,)), path)
    return path


@pytest.fixture
def broken_photos(photos: Path, tmp_path: Path) -> Path:
    """The photos with one file more that is no picture."""
    folder = tmp_path / "photos"
    for file in photos.rglob("*.*"):
        copy = folder / file.relative_to(photos)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    (folder / "rough" / "broken.png").write_bytes(np.random.default_rng(0).bytes(100))
    return folder
