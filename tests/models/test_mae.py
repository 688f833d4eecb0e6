"""The masked autoencoder as a whole."""

import pytest
import torch

import tiny
from maekit import masking, presets
from maekit.config import MaskConfig, TargetConfig
from maekit.errors import ModelError
from maekit.models import mae
from maekit.models.mae import MaskedAutoencoder
from maekit.randomness import keys_tensor

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.2, 0.3)
VIT_PRESETS = [name for name, preset in presets.PRETRAIN.items() if preset().model.encoder.startswith("vit_")]
KINDS = {
    "paper": {},
    "learned positions": {"positions": "learned", "decoder": tiny.decoder_config(positions="learned")},
    "no class token, registers": {"class_token": False, "register_tokens": 2},
    "cross": {"decoder": tiny.decoder_config(kind="cross", predicted_share=0.5)},
    "cross, feature maps": {"decoder": tiny.decoder_config(kind="cross", feature_maps=2)},
}


def build(target="normalised", **changes):
    config = tiny.model_config(**changes)
    mean, std = (MEAN, STD) if config.channels == 3 else ((0.5,) * config.channels,) * 2
    torch.manual_seed(0)
    return MaskedAutoencoder(config, TargetConfig(kind=target), MaskConfig(ratio=0.75), mean=mean, std=std)


def example(model, n=4):
    """(standardised images, masks, keys)."""
    pixels = torch.rand(n, model.config.channels, *model.config.image_hw, generator=torch.Generator().manual_seed(1))
    keys = keys_tensor(0, torch.arange(n))
    return model.standardise(pixels), masking.draw(model.mask, model.grid, keys), keys


def loss_of(model, images, masked, keys):
    prediction = model(images, masked, keys=keys)
    return model.objective.loss(images, prediction.patches, prediction.index)


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS.keys())
def test_it_predicts_the_hidden_patches(changes):
    model = build(**changes)
    images, masked, _ = example(model)
    prediction = model(images, masked)
    assert model.grid == (4, 6)
    assert prediction.patches.shape == (4, 18, 48)
    assert torch.equal(masked.nonzero()[:, 1].view(4, 18), prediction.index)
    known = model(images, masked, hidden=18)
    assert torch.equal(known.patches, prediction.patches)


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS.keys())
def test_every_trainable_parameter_gets_a_gradient(changes):
    model = build(**changes)
    loss_of(model, *example(model)).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert without == []


@pytest.mark.parametrize("name", VIT_PRESETS)
def test_every_preset_trains_every_parameter(name):
    config = tiny.shrunk(name)
    channels = config.model.channels
    model = mae.build(
        config.model, config.target, config.mask, (0.5,) * channels, (0.5,) * channels, seed=config.run.seed
    )
    loss_of(model, *example(model)).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert without == []


def test_in_training_a_cross_decoder_predicts_its_share_and_without_keys_everything():
    model = build(decoder=tiny.decoder_config(kind="cross", predicted_share=0.5)).eval()
    images, masked, keys = example(model)
    everything, share = model(images, masked), model(images, masked, keys=keys)
    assert share.index.shape == (4, 9)
    place = torch.searchsorted(everything.index.contiguous(), share.index)
    same = everything.patches.gather(1, place[:, :, None].expand(-1, -1, 48))
    torch.testing.assert_close(share.patches, same, atol=1e-5, rtol=1e-5)
    assert len({tuple(row) for row in share.index.tolist()}) > 1


def test_a_prediction_depends_on_no_other_image_of_the_batch():
    model = build().eval()
    images, masked, _ = example(model)
    together = model(images, masked).patches[2:3]
    torch.testing.assert_close(model(images[2:3], masked[2:3]).patches, together, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS.keys())
def test_recomputing_activations_gives_the_same_gradients(changes):
    model = build(**changes)
    gradients = []
    for enabled in (False, True):
        model.recompute_activations(enabled)
        model.zero_grad()
        loss_of(model, *example(model)).backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS.keys())
def test_bf16_autocast_stays_near_float32(changes):
    model = build(**changes)
    images, masked, keys = example(model)
    exact = loss_of(model, images, masked, keys)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = loss_of(model, images, masked, keys)
    rounded.backward()
    assert rounded.dtype is torch.float32
    assert float(rounded.detach()) == pytest.approx(float(exact.detach()), rel=0.02)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


def test_it_learns_to_paint_what_it_has_seen():
    model = build("raw")
    images, masked, keys = example(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = float(loss_of(model, images, masked, keys).detach())
    for _ in range(60):
        optimizer.zero_grad()
        loss = loss_of(model, images, masked, keys)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.7 * first


def test_initial_weights_are_the_seeds_and_leave_other_draws_alone():
    config = tiny.shrunk("vit-tiny")
    torch.manual_seed(3)
    first = mae.build(config.model, config.target, config.mask, MEAN, STD, seed=config.run.seed)
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))
    again = mae.build(config.model, config.target, config.mask, MEAN, STD, seed=config.run.seed)
    other = mae.build(config.model, config.target, config.mask, MEAN, STD, seed=1)
    weights = [model.state_dict()["encoder.blocks.0.attn.qkv.weight"] for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_standardise_takes_bytes_and_floats_and_can_be_undone():
    model = build()
    whole = torch.randint(0, 256, (2, 3, 16, 24), dtype=torch.uint8)
    images = model.standardise(whole)
    torch.testing.assert_close(images, model.standardise(whole / 255))
    torch.testing.assert_close(model.standardise.inverse(images), whole / 255)
    assert not {"standardise.mean", "standardise.std"} & model.state_dict().keys()


@pytest.mark.parametrize(
    ("images", "masked", "words"),
    [
        ((4, 3, 16, 16), (4, 24), r"images: the model takes \[N, 3, 16, 24\], not \[4, 3, 16, 16\]"),
        ((4, 1, 16, 24), (4, 24), r"not \[4, 1, 16, 24\]"),
        ((4, 3, 16, 24), (4, 25), r"mask: must be \[4, 24\]"),
        ((4, 3, 16, 24), (1, 24), r"mask: must be \[4, 24\]"),
        ((4, 3, 16, 24), (4, 24), "here 0 of 24"),
    ],
)
def test_images_and_masks_of_other_sizes_are_refused(images, masked, words):
    with pytest.raises(ModelError, match=words):
        build()(torch.zeros(images), torch.zeros(masked, dtype=torch.bool))


def test_models_that_do_not_fit_together_are_refused():
    with pytest.raises(ModelError, match="needs self or cross, not linear"):
        build(decoder=tiny.decoder_config(kind="linear"))
    with pytest.raises(ModelError, match="3 values for images of 1 channels"):
        MaskedAutoencoder(tiny.model_config(channels=1), TargetConfig(kind="raw"), MaskConfig(), mean=MEAN, std=STD)
    with pytest.raises(ModelError, match="std above 0"):
        MaskedAutoencoder(tiny.model_config(), TargetConfig(kind="raw"), MaskConfig(), mean=MEAN, std=(0, 1, 1))
