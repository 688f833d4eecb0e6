"""Fixtures every test may use. Nothing here needs network, a GPU, or files outside the repository."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # test processes run side by side
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import contextlib
import io
import logging
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import processes

MaekitRun = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def maekit_command() -> MaekitRun:
    """Run `maekit WORDS...` in a process of its own."""
    return processes.in_its_own


@pytest.fixture(scope="session")
def maekit_here() -> MaekitRun:
    """Run `maekit WORDS...` in this process, which saves seconds of imports."""
    from maekit import cli

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        out, err, log = io.StringIO(), io.StringIO(), logging.getLogger("maekit")
        handlers, propagates = list(log.handlers), log.propagate
        try:
            log.handlers = []  # so that the run's own is made anew, and writes to `err`
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = cli.main([str(word) for word in words])
        finally:
            log.handlers, log.propagate = handlers, propagates
        return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(autouse=True, scope="session")
def _a_disk_with_room() -> Iterator[None]:
    """Whether copies are made here does not depend on how full this machine's disk is."""
    from maekit.data import cache

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "disk_usage", lambda _: SimpleNamespace(total=1e12, free=5e11))
        yield


@pytest.fixture(autouse=True)
def _log_as_imported() -> None:
    """No recipe that ran in this process before, in a test or a fixture, leaves its handlers."""
    log = logging.getLogger("maekit")
    log.handlers, log.propagate = [], True


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve smooth colour pictures of different sizes in two class folders, half JPEG, half PNG."""
    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for number in range(12):
        height, width = int(draw.integers(40, 90)), int(draw.integers(40, 90))
        rows, columns = np.mgrid[0:height, 0:width]
        waves = [np.sin(rows / draw.uniform(4, 20) + columns / draw.uniform(4, 20)) for _ in range(3)]
        picture = Image.fromarray(((np.stack(waves, -1) + 1) * 127.5).astype(np.uint8))
        target = folder / ("rough" if number % 2 else "smooth")
        target.mkdir(exist_ok=True)
        picture.save(target / f"{number:02d}.{'jpg' if number % 4 < 2 else 'png'}")
    return folder


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/digits, pretrained for two steps, and runs/tuned, fine-tuned of it."""
    import maekit

    folder, tiny = tmp_path_factory.mktemp("two"), {"device": "cpu", "workers": 0, "steps": 2}
    with contextlib.chdir(folder):
        maekit.pretrain("digits", out="runs/digits", options={"validation.images": 60}, **tiny)
        maekit.finetune("digits", weights="runs/digits", per_class=2, out="runs/tuned", **tiny)
    return folder


@pytest.fixture
def here(two_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with those two runs in it."""
    (tmp_path / "runs").mkdir()
    for name in ("digits", "tuned"):
        (tmp_path / "runs" / name).symlink_to(two_runs / "runs" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pytest_collection_modifyitems(items):
    """The longest first, beside which the other process takes the rest."""
    items.sort(key=lambda item: item.path.name != "test_tour.py")
