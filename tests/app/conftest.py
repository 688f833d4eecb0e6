"""One process that decodes, for all tests of the page: its imports take seconds."""

import pytest

from maekit.app.reading import Reader


@pytest.fixture(scope="session")
def reader():
    with Reader() as reader:
        yield reader
