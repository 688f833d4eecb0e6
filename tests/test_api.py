"""The Python face, as the README shows it."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch

import maekit
from maekit import masking, presets
from maekit.config import MaskConfig
from maekit.randomness import keys_tensor


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a short run on digits, started from Python."""
    preset = presets.PRETRAIN["digits"]()
    out = str(tmp_path_factory.mktemp("api") / "run")
    config = replace(
        preset,
        schedule=replace(preset.schedule, steps=3),
        run=replace(preset.run, out=out, tensorboard=False),
    )
    answer = maekit.pretrain(config)
    assert answer.run == out
    assert answer.steps == 3
    return out


def test_a_run_loads_reconstructs_and_leaves_a_timm_model(run):
    model = maekit.load(run)
    assert isinstance(model, maekit.MaskedAutoencoder)
    images = torch.rand(3, 1, 8, 8)
    masked = masking.draw(MaskConfig(ratio=0.5), model.grid, keys_tensor(0, torch.arange(3)))
    picture = maekit.reconstruct(model, images, masked)
    assert picture.shape == images.shape
    assert 0 <= picture.min() <= picture.max() <= 1
    shown = ~masked.reshape(3, 4, 4).repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None]
    assert torch.allclose(picture[shown], images[shown], atol=1e-6)
    assert not torch.equal(picture[~shown], images[~shown])
    assert isinstance(model.encoder, timm.models.VisionTransformer)
    assert model.encoder(model.standardise(images)).shape == (3, 96)


def test_names_are_there_to_be_found():
    assert set(maekit.__all__) <= set(dir(maekit))
    for name in maekit.__all__:
        assert getattr(maekit, name) is not None
    with pytest.raises(AttributeError, match="module 'maekit' has no attribute 'reconstuct'"):
        maekit.reconstuct  # noqa: B018


def test_what_is_wrong_is_one_class_to_catch(run):
    with pytest.raises(maekit.MaekitError, match=r"mask: must be \[2, 16\]"):
        maekit.reconstruct(maekit.load(run), torch.rand(2, 1, 8, 8), torch.zeros(2, 15, dtype=torch.bool))


def test_weights_by_name_paint_tensors_too(run):
    images, masked = torch.rand(2, 1, 8, 8), torch.arange(16).repeat(2, 1) < 8
    assert torch.equal(maekit.reconstruct(run, images, masked), maekit.reconstruct(maekit.load(run), images, masked))


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (torch.full((2, 1, 8, 8), 255.0), r"float values from 255 to 255; they have to be in \[0, 1\]"),
        (torch.tensor([-2.1, 2.4]).repeat(32).reshape(1, 1, 8, 8), "from -2.1 to 2.4; .* not standardised"),
        (np.zeros((2, 1, 8, 8), np.float32), r"a tensor \[N, 1, 8, 8\], not a ndarray"),
    ],
)
def test_features_are_of_images_in_their_range(run, images, told):
    with pytest.raises(maekit.ModelError, match=told):
        maekit.load(run).features(images)


def test_one_kind_is_still_a_list(run):
    with pytest.raises(maekit.MaekitError, match=r"kinds: takes a list, \['knn'\], got 'knn'"):
        maekit.probe(run, "digits:train", val="digits:test", kinds="knn")
