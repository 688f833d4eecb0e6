"""Images of the page by their names."""

import io

import numpy as np
from PIL import Image

from maekit.app.decoding import View
from maekit.app.images import Images


def test_thumbnails_are_of_the_model_that_sees_most():
    views = [View(1, None, (8, 8), 1.0), View(3, None, (64, 64), 1.0), View(3, None, (32, 32), 1.0)]
    images = Images(views, reader=None, gallery=None)
    shown = np.asarray(Image.open(io.BytesIO(images.thumbnail("sample:boat"))))
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 32 * 32  # which neither of the others can show
    assert np.ptp(shown.astype(int), axis=2).max() > 50
