"""The same dozen pictures in every form a source can have."""

from pathlib import Path

import pytest
from source_forms import MAKERS


@pytest.fixture(scope="session")
def in_every_form(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """SOURCE strings by form, all of the same images in the same order."""
    import datasets

    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("cache")  # type: ignore[attr-defined]
    files = sorted(photos.rglob("*.*"))
    made = {form: make(files, tmp_path_factory.mktemp(form)) for form, make in MAKERS.items()}
    return {"folder": str(photos), **made}
