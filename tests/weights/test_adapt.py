"""Weights at another image size or with other channels, only where that is asked for."""

import pytest
import torch

import tiny
from maekit.config.verbs import WeightsOptions
from maekit.errors import WeightsError
from maekit.models.family import features
from maekit.weights import native
from maekit.weights.load import load


@pytest.fixture
def saved(model_of, tmp_path):
    model = model_of("masked_autoencoder")
    native.save(model, tmp_path / "model.safetensors")
    return model, tmp_path


def masks(model, images=2):
    patches = model.grid[0] * model.grid[1]
    return torch.zeros(images, patches, dtype=torch.bool).scatter(1, torch.arange(3).expand(images, -1), True)


def test_another_size_is_refused_unasked(saved):
    _, path = saved
    with pytest.raises(WeightsError, match="positions for images of 16x24 px, not 32x32 px; --resample-positions"):
        load(path, WeightsOptions(image_size=32))


def test_the_own_size_needs_no_resampling(saved):
    model, path = saved
    assert torch.equal(load(path, WeightsOptions(image_size=(16, 24))).encoder.pos_embed, model.encoder.pos_embed)


def test_as_many_patches_in_another_shape_are_not_taken_for_the_own_size(model_of, tmp_path):
    """16 positions may be 4x4 patches or 2x8; where they are to be resampled, the file is taken for square."""
    square = model_of("encoder", image_size=16)
    torch.save({"model": square.encoder.state_dict()}, tmp_path / "w.pth")
    own = load(tmp_path / "w.pth", WeightsOptions(heads=2, image_size=(8, 32)))
    assert torch.equal(own.encoder.pos_embed, square.encoder.pos_embed)
    resampled = load(tmp_path / "w.pth", WeightsOptions(heads=2, image_size=(8, 32), resample_positions=True))
    assert resampled.config.image_hw == (8, 32)
    assert not torch.equal(resampled.encoder.pos_embed, square.encoder.pos_embed)


def test_resampled_positions_are_the_old_ones_between_the_old_places(saved):
    model, path = saved
    larger = load(path, WeightsOptions(image_size=(32, 48), resample_positions=True))
    assert larger.config.image_hw == (32, 48)
    for old, new in (
        (model.encoder.pos_embed, larger.encoder.pos_embed),
        (model.decoder.positions, larger.decoder.positions),
    ):
        assert torch.equal(new[:, 0], old[:, 0])
        before, after = old[0, 1:].unflatten(0, (4, 6)), new[0, 1:].unflatten(0, (8, 12))
        means = after.unflatten(1, (6, 2)).unflatten(0, (4, 2)).mean(dim=(1, 3))
        assert (means - before)[1:-1, 1:-1].abs().max() < 0.1
    with torch.no_grad():
        assert larger(torch.randn(2, 3, 32, 48), masks(larger)).patches.isfinite().all()


def test_resampling_swin_and_hiera(tmp_path):
    for name, sizes in (
        ("swin_tiny_patch4_window7_224", {"swin_method": "dense", "window": 2}),
        ("hiera_tiny_224", {}),
    ):
        config = tiny.model_config(
            encoder=name, image_size=64, patch_size=None, width=24, depth=None, heads=None, **sizes
        )
        native.save(
            native.build(native.Blueprint("encoder", config, (0.5,) * 3, (0.5,) * 3)), tmp_path / "w.safetensors"
        )
        model = load(tmp_path / "w.safetensors", WeightsOptions(image_size=128, resample_positions=True))
        with torch.no_grad():
            assert model.features(torch.rand(1, 3, 128, 128)).isfinite().all()


@pytest.mark.parametrize("stem", ["patch", "conv"])
def test_one_channel_sees_grey_as_three_saw_it_repeated(model_of, tmp_path, stem):
    model = model_of("encoder", stem=stem)
    native.save(model, tmp_path / "model.safetensors")
    grey = load(tmp_path, WeightsOptions(channels=1))
    images = torch.randn(2, 1, *model.config.image_hw)
    with torch.no_grad():
        expected = features(model.encoder, images.expand(-1, 3, -1, -1))
        assert torch.allclose(features(grey.encoder, images), expected, atol=1e-5)
    mean, _ = grey.standardise.values()
    assert mean == pytest.approx((0.4,))


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_decoder_predicts_as_many_channels(saved, channels):
    model, path = saved
    changed = load(path, WeightsOptions(channels=channels))
    with torch.no_grad():
        assert changed(torch.randn(2, channels, 16, 24), masks(changed)).patches.shape == (2, 3, 16 * channels)
    pixels = changed.decoder.head[1].weight.view(4, 4, channels, -1)
    kept = model.decoder.head[1].weight.view(4, 4, 3, -1)
    assert torch.allclose(pixels[:, :, 0], kept.mean(2) if channels == 1 else kept[:, :, 0])
