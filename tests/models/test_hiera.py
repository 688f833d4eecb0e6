"""Hiera as a masked autoencoder: timm's own masked network, with the stages fused."""

import re
from dataclasses import replace

import pytest
import timm
import torch
from torch import Tensor, nn

from maekit import masking
from maekit.config import DecoderConfig, MaskConfig, ModelConfig
from maekit.errors import ModelError
from maekit.models.family import Shown, family_of, grid_of, layer_ids
from maekit.models.hiera import HIERA
from maekit.patches import split

TINY, ABSOLUTE_WINDOW = "hiera_tiny_224", "hiera_small_abswin_256"


def configured(encoder: str = TINY, size=(96, 64), **options) -> ModelConfig:
    decoder = DecoderConfig(kind="self", width=16, depth=1, heads=2)
    return ModelConfig(encoder=encoder, image_size=size, **{"width": 16, "decoder": decoder, **options})


def built(config: ModelConfig) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    encoder = HIERA.build(config)
    return encoder, HIERA.adapter(encoder, config)


def batch(config: ModelConfig, encoder: nn.Module, kind: str = "random") -> tuple[Tensor, Tensor, Tensor]:
    """Images, mask, visible units."""
    ratio = 0.75 if kind == "one_in_2x2" else 0.6
    masked = masking.draw(MaskConfig(kind=kind, ratio=ratio), grid_of(HIERA, encoder, config), torch.arange(2))
    return torch.randn(2, config.channels, *config.image_hw), masked, split(masked)[0]


CONFIGS = [configured(), configured(ABSOLUTE_WINDOW, 64), configured(size=(64, 128), channels=5)]


@pytest.mark.parametrize("config", CONFIGS)
def test_units_end_as_the_tokens_of_timms_network_that_pools_twice(config):
    """The paper's (its released `q_pool=2`): stages before a pooling brought to 2x2 tokens a unit, summed, normed.

    The same weights in timm's model with one pooling less; where each token lies is seen from timm's unmasked order.
    """
    encoder, adapter = (module.double() for module in built(config))
    twice = timm.create_model(
        config.encoder, num_classes=0, img_size=config.image_hw, embed_dim=16, q_pool=2, in_chans=config.channels
    ).double()
    twice.load_state_dict(encoder.state_dict(), strict=True)
    images, masked, visible = batch(config, encoder)
    images = images.double()
    stages = twice.forward_features(images, mask=~masked, return_intermediates=True)[1]
    fused = stages[-1].flatten(2, 3)
    for head, stage, side in zip(adapter.heads, stages, (4, 2), strict=False):
        weight = head.weight.unflatten(1, (side, side, -1)).permute(0, 3, 1, 2)
        convolved = torch.nn.functional.conv2d(stage.flatten(0, 1).permute(0, 3, 1, 2), weight, head.bias, stride=side)
        fused = fused + convolved.flatten(2).transpose(1, 2).unflatten(0, stage.shape[:2])
    assert len(adapter.heads) == 2
    latents = HIERA.encode_visible(encoder, adapter, Shown(images, masked, visible))
    torch.testing.assert_close(latents.tokens, twice.head.norm(fused).flatten(1, 2), rtol=1e-9, atol=1e-9)
    rows, columns = grid_of(HIERA, encoder, config)
    numbers = torch.arange(4 * rows * columns).view(rows, 2, columns, 2).transpose(1, 2).flatten(2).flatten(0, 1)
    assert torch.equal(latents.index, numbers[visible].flatten(1))


@pytest.mark.parametrize("config", [replace(config, pool_units=True) for config in CONFIGS])
def test_pooled_units_pass_timms_own_masked_network(config):
    """The stages of timm's forward with its mask (True = keep), each brought to one token a unit, summed, normed."""
    encoder, adapter = (module.double() for module in built(config))
    images, masked, visible = batch(config, encoder)
    images = images.double()
    last, stages = encoder.forward_features(images, mask=~masked, return_intermediates=True)
    fused = last
    for head, stage in zip(adapter.heads, stages, strict=False):
        weight = head.weight.unflatten(1, stage.shape[2:])
        fused = fused + torch.einsum("nvhwc,dhwc->nvd", stage, weight) + head.bias
    latents = HIERA.encode_visible(encoder, adapter, Shown(images, masked, visible))
    assert torch.equal(latents.index, visible)
    assert latents.tokens.shape == (2, visible.shape[1], HIERA.latent_width(encoder, config))
    torch.testing.assert_close(latents.tokens, encoder.head.norm(fused), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", sorted(HIERA.mask_kinds(configured()) - {"painted"}))
def test_hidden_pixels_are_never_looked_at_in_any_kind_of_mask(kind):
    config = configured(size=128, channels=1)
    encoder, adapter = built(config)
    if kind == "grid":
        masked = masking.draw(MaskConfig(kind="grid", ratio=0.75), (4, 4), torch.arange(2))
        images, visible = torch.randn(2, 1, 128, 128), split(masked)[0]
    else:
        images, masked, visible = batch(config, encoder, kind)
    hidden = masked.view(2, 1, 4, 4).repeat_interleave(32, 2).repeat_interleave(32, 3)
    seen = HIERA.encode_visible(encoder, adapter, Shown(images, masked, visible)).tokens
    changed = torch.where(hidden, 100 * torch.randn_like(images), images)
    assert torch.equal(seen, HIERA.encode_visible(encoder, adapter, Shown(changed, masked, visible)).tokens)
    assert not torch.equal(seen, HIERA.encode_visible(encoder, adapter, Shown(images + 1, masked, visible)).tokens)


@pytest.mark.parametrize("config", [configured(), configured(ABSOLUTE_WINDOW)])
def test_gradient_reaches_every_parameter_and_recomputing_changes_none(config):
    encoder, adapter = built(config)
    images, masked, visible = batch(config, encoder)
    parameters = dict(encoder.named_parameters()) | dict(adapter.named_parameters())
    weights = torch.randn(2, 4 * visible.shape[1], HIERA.latent_width(encoder, config))
    gradients = []
    for recompute in (False, True):
        encoder.set_grad_checkpointing(recompute)
        for parameter in parameters.values():
            parameter.grad = None
        HIERA.encode_visible(encoder, adapter, Shown(images, masked, visible)).tokens.mul(weights).sum().backward()
        assert [name for name, p in parameters.items() if p.grad is None or not p.grad.any()] == []
        gradients.append([p.grad for p in parameters.values()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_encoder_is_a_native_timm_model():
    encoder, _ = built(configured())
    native = timm.create_model(TINY, num_classes=0, img_size=(96, 64), embed_dim=16)
    native.load_state_dict(encoder.state_dict(), strict=True)
    images = torch.randn(1, 3, 96, 64)
    assert torch.equal(native.eval()(images), encoder.eval()(images))
    assert family_of(native) is HIERA


def test_initialised_as_the_released_masked_autoencoder():
    """Xavier-uniform, the patch projection as a Linear, no biases: bounds no normal distribution keeps."""
    encoder, adapter = built(configured(width=32))
    for weight in (encoder.blocks[0].mlp.fc1.weight, encoder.patch_embed.proj.weight, adapter.heads[0].weight):
        rows = weight.flatten(1)
        bound = (6 / sum(rows.shape)) ** 0.5
        assert 0.9 * bound < rows.abs().max() <= bound
    assert not encoder.blocks[0].attn.qkv.bias.any()
    assert encoder.pos_embed.std() > 0.01


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": (200, 64)}, "height 200 is not a multiple of the 32-px mask unit; take 192 or 224"),
        ({"size": (64, 20)}, "take 32"),
        ({"window": 7}, "model.window"),
        ({"patch_size": 8}, "model.patch_size"),
        ({"depth": 3}, "model.depth"),
        ({"register_tokens": 1}, "model.register_tokens"),
        ({"swin_method": "dense"}, "model.swin_method"),
        ({"secondary_ratio": 0.5}, "model.secondary_ratio"),
        ({"decoder": DecoderConfig(kind="cross", feature_maps=1)}, "model.decoder.feature_maps"),
        ({"encoder": "hiera_base_plus_224", "width": 15}, "model.width"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(options, words):
    with pytest.raises(ModelError, match=re.escape(words)) as caught:
        HIERA.build(configured(**options))
    assert "\n" not in str(caught.value)


def test_whole_images_take_the_native_path():
    encoder = built(configured())[0].eval()
    images = torch.randn(2, 3, 96, 64)
    features = encoder.forward_features(images)
    norm = encoder.head.norm
    assert torch.equal(HIERA.encode(encoder, images).tokens, norm(features))
    before = encoder.forward_intermediates(
        images, indices=[9], coarse=False, output_fmt="NHWC", intermediates_only=True
    )[0]
    outputs = []
    hook = encoder.blocks[-2].register_forward_hook(lambda *call: outputs.append(call[2]))
    two = HIERA.encode(encoder, images, blocks=2).tokens
    hook.remove()
    assert before.shape[-1] != features.shape[-1]  # one block further up has another width
    torch.testing.assert_close(two, (norm(features) + norm(outputs[0])) / 2)
    with pytest.raises(ModelError, match="only 2 have"):
        HIERA.encode(encoder, images, blocks=3)
    assert HIERA.take_norm(encoder) is norm
    assert torch.equal(HIERA.encode(encoder, images).tokens, features)


def test_layers_for_decay_end_with_norm_and_head():
    layers, last = layer_ids(timm.create_model(ABSOLUTE_WINDOW, num_classes=3, embed_dim=16))
    assert last == 17
    assert layers["pos_embed"] == layers["pos_embed_win"] == layers["patch_embed.proj.weight"] == 0
    assert layers["blocks.0.mlp.fc1.weight"] == 1
    assert layers["blocks.15.attn.qkv.weight"] == 16
    assert {layers[name] for name in layers if name.startswith("head")} == {17}
