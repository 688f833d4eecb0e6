"""Images of the page by their names."""

import io
import runpy
from pathlib import Path

import numpy as np
from PIL import Image

from maekit.app import samples
from maekit.app.decoding import View
from maekit.app.images import Images


def test_thumbnails_are_of_the_model_that_sees_most():
    views = [View(1, None, (8, 8), 1.0), View(3, None, (64, 64), 1.0), View(3, None, (32, 32), 1.0)]
    images = Images(views, reader=None, gallery=None)
    shown = np.asarray(Image.open(io.BytesIO(images.thumbnail("sample:boat"))))
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 32 * 32  # which neither of the others can show
    assert np.ptp(shown.astype(int), axis=2).max() > 50


def test_samples_are_what_their_script_draws(tmp_path, monkeypatch):
    script = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "draw_samples.py"))
    kept = script["FOLDER"]
    monkeypatch.setitem(script["main"].__globals__, "FOLDER", tmp_path)
    script["main"]()
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(samples.SAMPLES)
    for path in tmp_path.iterdir():
        with Image.open(path) as new, Image.open(kept / path.name) as old:
            difference = np.abs(np.asarray(new, int) - np.asarray(old, int))
        assert difference.mean() < 1, f"{path.name}: run python docs/draw_samples.py"
