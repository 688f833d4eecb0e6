"""The same dozen pictures in every form a source can have."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import FileServer, serving
from source_forms import MAKERS

from maekit.data.sources import remote


@pytest.fixture(scope="session")
def in_every_form(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """SOURCE strings by form, all of the same images in the same order."""
    import datasets

    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("cache")  # type: ignore[attr-defined]
    files = sorted(photos.rglob("*.*"))
    folders = {form: tmp_path_factory.mktemp(form) for form in MAKERS}
    made = {form: make(files, folders[form]) for form, make in MAKERS.items()}
    with serving() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAEKIT_CACHE", os.fspath(tmp_path_factory.mktemp("elsewhere")))
        for form in ("parquet", "shards"):
            for file in folders[form].iterdir():
                server.put(file.name, file.read_bytes())
        made["shards elsewhere"] = f"{server.url}/shard-{{000..001}}.tar"
        made["parquet elsewhere"] = f"{server.url}/train-{{00000,00001}}-of-00002.parquet"
        yield {"folder": str(photos), **made}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of copies, empty; what fails is tried again at once."""
    monkeypatch.setenv("MAEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "_PAUSES", (0.01, 0.02))
    return tmp_path / "cache"


@pytest.fixture
def server() -> Iterator[FileServer]:
    """A server of files on this machine."""
    with serving() as running:
        yield running
