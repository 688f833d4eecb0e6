"""Each channel in tokens of its own: masks, positions, targets and pictures keep to their channel."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny
from maekit import masking
from maekit.config import MaskConfig, TargetConfig
from maekit.config.verbs import WeightsOptions
from maekit.errors import ModelError, WeightsError
from maekit.inference.picture import masked_panel
from maekit.inference.reconstruct import reconstruct, rows
from maekit.models import positions
from maekit.models.mae import MaskedAutoencoder
from maekit.models.vit import VIT
from maekit.randomness import keys_tensor
from maekit.targets import Geometry, build
from maekit.weights import native
from maekit.weights.load import load

KEYS = keys_tensor(0, torch.arange(5))


def autoencoder(channels: int, target: str = "raw", mask: MaskConfig = MaskConfig(ratio=0.5), **changes):  # noqa: B008
    torch.manual_seed(0)
    config = tiny.model_config(channels=channels, channel_tokens=True, **changes)
    mean = tuple(0.1 * (1 + channel) for channel in range(channels))
    return MaskedAutoencoder(config, TargetConfig(kind=target), mask, mean=mean, std=(0.5,) * channels).eval()


@pytest.mark.parametrize("mask", [MaskConfig(ratio=0.75), MaskConfig(kind="block", ratio=0.5)], ids=lambda m: m.kind)
def test_every_channel_has_a_mask_of_its_own_and_of_the_same_share(mask):
    drawn = masking.build(mask, (3 * 8, 6), planes=3)
    masked = drawn.draw(KEYS).view(5, 3, 48)
    one = masking.build(mask, (8, 6))
    assert drawn.hidden == 3 * one.hidden
    assert (masked.sum(dim=2) == one.hidden).all()
    for plane in range(3):
        assert torch.equal(masked[:, plane], one.draw(keys_tensor(KEYS, plane)))
    assert all(len({tuple(plane.tolist()) for plane in image}) == 3 for image in masked)


def test_one_plane_is_the_mask_that_there_is_without():
    assert torch.equal(masking.draw(MaskConfig(), (8, 6), KEYS, planes=1), masking.draw(MaskConfig(), (8, 6), KEYS))


def test_places_are_those_of_one_channel_and_a_number_tells_the_channel():
    table = positions.table("sincos", (3 * 4, 6), 16, prefix=2, planes=3)
    assert not table[:2].any()
    planes = table[2:].view(3, 24, 16)
    torch.testing.assert_close(
        planes - positions.sincos((4, 6), 16), positions.sincos1d(3, 16)[:, None].expand(-1, 24, -1)
    )
    assert len(planes[:, 0].unique(dim=0)) == 3


def test_each_channel_is_embedded_by_the_same_projection():
    many = VIT.build(tiny.model_config(channels=6, channel_tokens=True))
    one = VIT.build(tiny.model_config(channels=1))
    one.patch_embed.load_state_dict(many.patch_embed.state_dict())
    images = torch.randn(2, 6, 16, 24)
    tokens = many.patch_embed(images).unflatten(1, (6, -1))
    for channel in range(6):
        torch.testing.assert_close(tokens[:, channel], one.patch_embed(images[:, channel : channel + 1]))


def test_channels_are_told_apart():
    encoder = VIT.build(tiny.model_config(channels=2, channel_tokens=True)).eval()
    images = torch.randn(1, 2, 16, 24)
    assert not torch.allclose(encoder(images), encoder(images.flip(1)), atol=1e-3)


@pytest.mark.parametrize("channels", [1, 3, 6])
@pytest.mark.parametrize("target", ["raw", "normalised"])
def test_what_is_compared_are_patches_of_one_channel(channels, target):
    model = autoencoder(channels, target)
    images = torch.randn(2, channels, 16, 24)
    index = torch.tensor([[0, channels * 24 - 1], [5, 7]])
    made = model.objective.target.make(model.geometry.seen(images), index)
    last = images[0, -1, 12:, 20:].flatten()
    expected = last if target == "raw" else (last - last.mean()) / (last.var() + 1e-6).sqrt()
    assert made.shape == (2, 2, 16)
    torch.testing.assert_close(made[0, 1], expected)
    predicted = torch.randn(2, 2, 16)
    assert model.objective.loss(images, predicted, index) == (predicted - made).square().mean()


@pytest.mark.parametrize("channels", [1, 3, 6])
@pytest.mark.parametrize("target", ["raw", "normalised"])
def test_only_what_a_channel_hides_is_painted_in_it(channels, target):
    model = autoencoder(channels, target)
    images = torch.rand(5, channels, 16, 24)
    masked = model.objective.mask.draw(KEYS)
    painted = reconstruct(model, images, masked)
    hidden = masked.view(5, channels, 4, 6).repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert painted.shape == images.shape
    torch.testing.assert_close(painted[~hidden], images[~hidden])
    assert not torch.isclose(painted[hidden], images[hidden]).float().mean() > 0.2


def test_patches_of_other_channels_are_no_neighbours():
    """A hidden patch's mean comes from its own channel, whose last row lies beside the next one's first."""
    geometry = Geometry((2 * 8, 8), (4, 4), (4, 2), 1, (0.5,) * 2, (0.5,) * 2, planes=2)
    images = torch.cat([torch.full((1, 1, 8, 8), 1.0), torch.full((1, 1, 8, 8), -1.0)], dim=2)
    masked = torch.tensor([[False, False, True, False, True, False, False, False]])
    target = build(TargetConfig(kind="normalised"), geometry)
    painted = target.paint(torch.zeros(1, 2, 16), images, masked, torch.tensor([[2, 4]]), "visible")
    torch.testing.assert_close(painted[0, 0], torch.ones(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(painted[0, 1], -torch.ones(16), atol=1e-3, rtol=0)


def test_a_picture_shows_what_each_channel_hides():
    image = np.zeros((4, 4, 3), np.uint8)
    masked = np.zeros((2, 2, 3), bool)
    masked[0, 0, 1] = True
    panel = masked_panel(image, masked)
    assert panel.dtype == np.uint8
    assert (panel[:2, :2] == [0, 128, 0]).all()
    assert not panel[2:].any()
    model = autoencoder(3)
    row = rows(model, torch.zeros(1, 3, 16, 24), model.objective.mask.draw(KEYS[:1]))[0]
    assert ((row.masked == 128).reshape(4, 4, 6, 4, 3).all(axis=(1, 3)).sum(axis=(0, 1)) == 12).all()


def test_images_of_fewer_channels_are_refused():
    model = autoencoder(6)
    with pytest.raises(ModelError, match=r"the model takes \[N, 6, 16, 24\], not \[2, 3, 16, 24\]"):
        model.features(torch.rand(2, 3, 16, 24))
    assert model.features(torch.rand(2, 6, 16, 24), "patches").shape == (2, 6 * 24, 32)


def test_positions_are_resampled_channel_by_channel(tmp_path):
    three, one = (
        autoencoder(3),
        MaskedAutoencoder(
            tiny.model_config(channels=1), TargetConfig(kind="raw"), MaskConfig(ratio=0.5), mean=(0.5,), std=(0.5,)
        ),
    )
    tables = torch.randn(3, 24, 32)
    larger = WeightsOptions(image_size=(32, 48), resample_positions=True)
    with torch.no_grad():
        three.encoder.pos_embed[0, 1:] = tables.flatten(0, 1)
    native.save(three, tmp_path / "three.safetensors")
    found = load(tmp_path / "three.safetensors", larger).encoder.pos_embed[0, 1:].view(3, 96, 32)
    for table, plane in zip(tables, found, strict=True):
        with torch.no_grad():
            one.encoder.pos_embed[0, 1:] = table
        native.save(one, tmp_path / "one.safetensors")
        torch.testing.assert_close(plane, load(tmp_path / "one.safetensors", larger).encoder.pos_embed[0, 1:])


def test_channels_cannot_be_changed_and_the_papers_layouts_refuse_them(tmp_path):
    from maekit.weights.facebook import FACEBOOK
    from maekit.weights.huggingface import HUGGINGFACE

    model = autoencoder(3)
    native.save(model, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"^[^\n]*tokens of its own: --channels cannot change them$"):
        load(tmp_path / "w.safetensors", WeightsOptions(channels=1))
    for layout in (FACEBOOK, HUGGINGFACE):
        with pytest.raises(WeightsError, match=r"^[^\n]*cut all channels into one patch[^\n]*$"):
            layout.write(native.encoder_of(model), tmp_path / "out")


def test_a_width_that_positions_need_is_told_in_one_line():
    config = tiny.model_config(channels=2, channel_tokens=True)
    with pytest.raises(ModelError, match="multiple of 4"):
        VIT.build(replace(config, width=30))
