"""One model for images of several sizes: what it learns from each is what a model of that size would."""

import copy
from dataclasses import replace

import pytest
import torch
from timm.layers import resample_abs_pos_embed

import tiny
import tiny_families
from maekit.config import TargetConfig
from maekit.errors import ModelError
from maekit.models.mae import MaskedAutoencoder
from maekit.randomness import keys_tensor

KINDS = {name: kind for name, kind in tiny_families.KINDS.items() if not name.startswith("hiera")}


def model_of(config):
    means = (0.5,) * config.channels
    torch.manual_seed(0)
    return MaskedAutoencoder(config, TargetConfig(kind="raw"), tiny_families.mask_for(config), mean=means, std=means)


def loss_of(model, seed=1):
    draws = torch.Generator().manual_seed(seed)
    images = model.standardise(torch.rand(2, model.config.channels, *model.config.image_hw, generator=draws))
    keys = keys_tensor(0, torch.arange(2))
    prediction = model(images, model.objective.mask.draw(keys), keys=keys)
    return model.objective.loss(images, prediction.patches, prediction.index)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_smaller_size_is_learned_as_by_a_model_of_that_size(kind):
    small = kind.image_hw
    kind = replace(kind, image_size=tuple(2 * side for side in small))
    if kind.encoder.startswith("swin"):
        kind = replace(kind, window=2)  # one as large as the image would be another at half the size
    model = model_of(kind)
    model.also_at(small)
    native = model_of(replace(kind, image_size=small))
    tables = {name for name, p in native.named_parameters() if p.shape != model.get_parameter(name).shape}
    tensors = {name: value for name, value in model.state_dict().items() if name not in tables}
    native.load_state_dict({**native.state_dict(), **tensors})
    for name in tables:
        grids = [*native.patch_grid], [*model.patch_grid]
        prefix = model.get_parameter(name).shape[1] - grids[1][0] * grids[1][1]
        native.get_parameter(name).data = resample_abs_pos_embed(model.get_parameter(name), *grids, prefix)
    other = model.others[small]
    assert ("encoder.pos_embed" in tables) == (kind.encoder.startswith("vit") and kind.positions != "rotary")
    assert other.grid == tuple(side // 2 for side in model.grid)
    losses = [loss_of(one) for one in (native, other)]
    assert torch.equal(*losses)
    for loss in losses:
        loss.backward()
    for name, parameter in native.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(model.get_parameter(name).grad, parameter.grad)


def test_positions_lie_where_the_patches_of_the_whole_do():
    """Those of a grid of half the size lie between four each, so that a change of size moves nothing."""
    model = model_of(tiny.model_config(image_size=(64, 64)))
    model.also_at((32, 32))
    small, whole = (one.encoder.pos_embed[0, 1:].unflatten(0, one.grid) for one in (model.others[32, 32], model))
    between = whole.unflatten(0, (8, 2)).unflatten(2, (8, 2)).mean(dim=(1, 3))
    slow = torch.arange(0, 32, 8)  # of each wave some, where the mean of four is near the wave
    assert (small - between).abs()[..., slow + 4].max() < 0.1
    assert (small - whole[:8, :8]).abs().max() > 0.5


def test_images_find_their_size_and_others_are_no_part_of_the_model():
    model = model_of(tiny.model_config(image_size=(16, 16)))
    names, count = list(model.state_dict()), len(list(model.parameters()))
    model.also_at((8, 8))
    assert model.at(torch.zeros(1, 3, 8, 8)) is model.others[8, 8]
    assert model.at(torch.zeros(1, 3, 16, 16)) is model.at(torch.zeros(1, 3, 12, 12)) is model
    assert (list(model.state_dict()), len(list(model.parameters()))) == (names, count)
    model.recompute_activations()
    assert model.others[8, 8].encoder.grad_checkpointing
    assert model.double().others[8, 8].standardise.mean.dtype is torch.float64
    assert model.others[8, 8].encoder.pos_embed.dtype is torch.float64
    assert copy.deepcopy(model).others[8, 8].device == model.device


@pytest.mark.parametrize(
    ("config", "size", "words"),
    [
        (tiny.model_config(positions="learned"), (8, 12), "encoder.pos_embed is trained for one size"),
        (tiny.model_config(decoder=tiny.decoder_config(positions="learned")), (8, 12), "decoder.positions is trained"),
        (tiny_families.KINDS["hiera"], (64, 64), "encoder.pos_embed is trained for one size"),
        (tiny.model_config(), (10, 15), "height 10 is not a multiple of the 4-px patch"),
        (tiny_families.KINDS["swin uniform"], (64, 64), "relative_position_bias_table is trained for one size"),
    ],
)
def test_what_is_of_one_size_is_refused_in_one_line(config, size, words):
    with pytest.raises(ModelError, match=words) as told:
        model_of(config).also_at(size)
    assert "\n" not in str(told.value)


def test_the_initial_weights_and_the_global_generator_are_left_alone():
    model = model_of(tiny.model_config())
    before, state = {n: v.clone() for n, v in model.state_dict().items()}, torch.get_rng_state()
    model.also_at((8, 12))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
