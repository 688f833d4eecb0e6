"""What the model is compared with, against the formula in NumPy."""

import numpy as np
import pytest
import torch

from maekit.config import TargetConfig
from maekit.patches import patchify, take
from maekit.targets import Geometry, build, error_of


@pytest.fixture
def images():
    return torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))


GEOMETRY = Geometry((8, 12), (4, 4), (2, 3), 3, (0.5,) * 3, (0.5,) * 3)
INDEX = torch.tensor([[0, 3, 5], [1, 2, 4]])


def numpy_patches(images):
    n, channels, height, width = images.shape
    cut = images.numpy().reshape(n, channels, height // 4, 4, width // 4, 4).transpose(0, 2, 4, 3, 5, 1)
    return np.take_along_axis(cut.reshape(n, -1, 4 * 4 * channels), INDEX.numpy()[:, :, None], axis=1)


def test_raw_targets_are_the_pixels(images):
    target = build(TargetConfig(kind="raw"), GEOMETRY).make(images, INDEX)
    np.testing.assert_array_equal(target.numpy(), numpy_patches(images))


def test_normalised_targets_are_the_papers_formula(images):
    patches = numpy_patches(images).astype(np.float64)
    expected = (patches - patches.mean(-1, keepdims=True)) / np.sqrt(patches.var(-1, ddof=1, keepdims=True) + 1e-6)
    target = build(TargetConfig(kind="normalised"), GEOMETRY).make(images, INDEX)
    np.testing.assert_allclose(target.numpy(), expected, atol=1e-5)


def test_a_patch_of_one_colour_normalises_to_zeros():
    target = build(TargetConfig(kind="normalised"), GEOMETRY).make(torch.full((2, 3, 8, 12), 0.7), INDEX)
    assert target.abs().max() < 1e-3


@pytest.mark.parametrize(("kind", "power"), [("l2", 2), ("l1", 1)])
def test_the_loss_is_the_mean_over_hidden_patches_alone(images, kind, power):
    config = TargetConfig(kind="raw", loss=kind)
    predicted = torch.zeros(2, 3, 48)
    value = error_of(config)(predicted, build(config, GEOMETRY).make(images, INDEX))
    assert float(value) == pytest.approx(np.mean(np.abs(numpy_patches(images)) ** power), rel=1e-5)

    changed = patchify(images, (4, 4))
    visible = torch.tensor([[1, 2, 4], [0, 3, 5]])
    changed.scatter_(1, visible[:, :, None].expand(-1, -1, 48), 100.0)
    assert torch.equal(take(changed, INDEX), build(config, GEOMETRY).make(images, INDEX))


def test_losses_of_half_precision_predictions_are_float32(images):
    config = TargetConfig(kind="normalised")
    predicted = torch.zeros(2, 3, 48, dtype=torch.bfloat16)
    assert error_of(config)(predicted, build(config, GEOMETRY).make(images, INDEX)).dtype is torch.float32
