"""One process that decodes, for all tests of the page: its imports take seconds; and a page over tiny models."""

import pytest
from served import classifies, painter, picture, served

from maekit.app.reading import Reader


@pytest.fixture(scope="session")
def reader():
    with Reader() as reader:
        yield reader


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("app")


@pytest.fixture(scope="module")
def weights(folder):
    """Two that paint, on 4 x 4 patches and on 2 x 4 of another size, and a classifier."""
    return (
        painter(folder / "normalised.safetensors"),
        painter(folder / "oblong.safetensors", target="raw", image_size=(32, 64), patch_size=16),
        classifies(folder / "classifier.safetensors"),
    )


@pytest.fixture(scope="module")
def site(weights, photos, reader):
    with served(reader, weights=weights, gallery=str(photos), batch_size=16, seconds=1.0) as site:
        yield site


@pytest.fixture(scope="module")
def image(site):
    return site.upload(picture()).said["image"]
