"""Types as users see them: typical use, the examples, and mistakes, under mypy's and pyright's strict modes."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

import maekit
import tiny
from maekit import presets
from maekit.config import ClassifierConfig
from maekit.models.classifier import Classifier
from maekit.weights import native

TYPICAL = Path(__file__).parent / "typed" / "typical_use.py"
EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
MISTAKES = """
import torch

import maekit
from maekit import presets
from maekit.config import MaskConfig
from maekit.sklearn import Embedder

model = maekit.load("runs/photos")
model.features(torch.rand(1, 3, 32, 32), "pooledd")  # no such kind
MaskConfig(ratio="most")  # no number
presets.PRETRAIN["digits"]().schedule.epoch  # no such option
Embedder("runs/photos", blocks="2")  # no number
width: str = model.width  # no text
"""
WRONG = {number for number, line in enumerate(MISTAKES.splitlines(), 1) if "  # n" in line}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A user's folder: maekit is installed beside what it needs, and the two files are the user's own."""
    project = tmp_path_factory.mktemp("user")
    for file in (TYPICAL, *EXAMPLES):
        shutil.copy(file, project)
    (project / "mistakes.py").write_text(MISTAKES)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(project / "venv")}))
    packages.mkdir(parents=True)
    (packages / "maekit").symlink_to(Path(maekit.__file__).parent)
    (packages / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    settings = {"typeCheckingMode": "strict", "include": ["*.py"], "venvPath": ".", "venv": "venv"}
    (project / "pyrightconfig.json").write_text(json.dumps(settings))
    return project


def wrong_lines(project, command, **environment):
    """Numbers of the lines in mistakes.py that a checker finds wrong; it finds nothing in the other files."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=project, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stdout + done.stderr
    elsewhere = [line for line in done.stdout.splitlines() if "error:" in line and "mistakes.py" not in line]
    assert not elsewhere
    return {int(number) for number in re.findall(r"mistakes\.py:(\d+).*error", done.stdout)}


@pytest.mark.skipif(importlib.util.find_spec("basedpyright") is None, reason="basedpyright is not installed")
def test_pyright_takes_typical_use_and_finds_mistakes(project):
    assert (Path(maekit.__file__).parent / "py.typed").exists()
    assert wrong_lines(project, ["basedpyright"]) >= WRONG


@pytest.mark.slow
def test_mypy_takes_typical_use_and_finds_mistakes(project, pytestconfig):
    """What mypy knows of torch is kept between runs of the tests: else it takes half a minute."""
    cache = pytestconfig.cache.mkdir("mypy")
    words = ["mypy", "--config-file=", "--strict", "--follow-imports=silent", f"--cache-dir={cache}"]
    found = wrong_lines(
        project,
        [*words, *(file.name for file in (TYPICAL, *EXAMPLES)), "mistakes.py"],
        MYPYPATH=str(Path(maekit.__file__).parents[1]),
    )
    assert found >= WRONG


def test_typical_use_runs(photos, tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("typical_use", TYPICAL)
    typical = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(typical)
    small = tiny.shrunk("vit-tiny-small-data")
    monkeypatch.setitem(presets.PRETRAIN, "vit-tiny-small-data", lambda: small)
    monkeypatch.setattr(typical, "STEPS", 2)
    weights = typical.pretrained(photos, tmp_path / "run")
    assert typical.shortly(sorted(photos.glob("*/*")), tmp_path / "shortly") > 0
    images = torch.rand(3, 3, 16, 16)
    assert typical.features(weights, images).shape == (3, 64)
    assert typical.painted(weights, images).shape == images.shape
    assert typical.frozen(weights, 1) > typical.frozen(weights, 2) > 0
    assert typical.Head(weights, 5)(images).shape == (3, 5)
    assert typical.embedded(weights, sorted(photos.glob("*/*"))) == 32
    assert typical.labels(weights, images) == []
    half = (0.5,) * 3
    tuned = Classifier(small.model, ClassifierConfig(pooling="mean"), ("a", "b"), mean=half, std=half)
    native.save(tuned, tmp_path / "tuned.safetensors")
    assert set(typical.labels(str(tmp_path / "tuned.safetensors"), images)) <= {"a", "b"}
