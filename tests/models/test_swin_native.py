"""What a Swin is as timm has it: names, sizes, windows, layers, and what it refuses."""

import re
from dataclasses import replace

import pytest
import timm
import torch

from maekit import masking
from maekit.config import DecoderConfig, MaskConfig, TargetConfig
from maekit.errors import ModelError
from maekit.models.family import Shown, family_of, layer_ids
from maekit.models.mae import MaskedAutoencoder
from maekit.models.swin import SWIN
from maekit.patches import split
from tiny_swins import RANDOM, V1, V2, built, dense, uniform


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (V1, {"window_size": 16, "img_size": 64, "embed_dim": 24}),
        (V2, {"img_size": 64, "embed_dim": 24, "window_size": 16}),
    ],
)
@pytest.mark.parametrize("make", [uniform, dense])
def test_encoder_is_a_native_timm_model(name, options, make):
    encoder, _ = built(make(name))
    native = timm.create_model(name, num_classes=0, **options)
    native.load_state_dict(encoder.state_dict(), strict=True)
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(native.eval()(images), encoder.eval()(images))
    assert family_of(native) is SWIN


def test_build_repeats_itself_under_a_seed():
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(SWIN.build(uniform()).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize(
    "config",
    [
        uniform(size=224, window=None),
        uniform(size=(224, 256)),
        uniform(size=(256, 200), window=8),
        uniform(size=256, window=7),
        uniform(size=20),
        dense(size=256, window=None),
        dense(size=(192, 100), window=6),
        uniform("swin_s3_tiny_224", 256, window=None, width=None),
        uniform(size=112, patch_size=2),
    ],
)
def test_sizes_that_do_not_fit_name_sizes_that_do(config):
    with pytest.raises(ModelError) as caught:
        SWIN.build(config, masked=True)
    message = str(caught.value)
    assert "\n" not in message
    axis = 0 if "height" in message else 1
    hints = re.findall(r"(\d+)(?: with model\.window (\d+))?", message.split("; take ")[1])
    assert hints
    for side, window in hints:
        sides = [int(side)] * 2 if config.image_hw[1 - axis] != int(side) else list(config.image_hw)
        sides[axis] = int(side)
        SWIN.build(
            replace(config, image_size=tuple(sides), window=int(window) if window else config.window), masked=True
        )


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"depth": 3}, "model.depth"),
        ({"heads": 2}, "model.heads"),
        ({"class_token": False}, "model.class_token"),
        ({"register_tokens": 2}, "model.register_tokens"),
        ({"positions": "learned"}, "model.positions"),
        ({"width": 25}, "model.width"),
        ({"swin_method": "dense", "secondary_ratio": 0.5}, "model.secondary_ratio"),
        ({"decoder": DecoderConfig(kind="cross", feature_maps=2)}, "model.decoder.feature_maps"),
    ],
)
def test_options_of_others_are_refused(options, named):
    with pytest.raises(ModelError, match=re.escape(named)):
        SWIN.build(uniform(**options))


def test_masks_that_cannot_be_packed_are_refused():
    config = uniform()
    with pytest.raises(ModelError, match="takes one_in_2x2"):
        MaskedAutoencoder(config, TargetConfig(kind="raw"), RANDOM, mean=(0.5,) * 3, std=(0.5,) * 3)
    encoder, adapter = built(config)
    masked = masking.draw(MaskConfig(kind="random", ratio=0.5), (4, 4), torch.arange(2))
    with pytest.raises(ModelError, match="one unit in 2x2"):
        SWIN.encode_visible(encoder, adapter, Shown(torch.zeros(2, 3, 64, 64), masked, split(masked)[0]))
    assert SWIN.mask_kinds(dense()) == {"random", "block", "grid", "one_in_2x2", "painted"}


@pytest.mark.parametrize("name", [V1, V2])
def test_whole_images_take_the_native_path(name):
    encoder = built(uniform(name))[0].eval()
    images = torch.randn(2, 3, 64, 64)
    native = encoder.forward_features(images).flatten(1, 2)
    assert torch.equal(SWIN.encode(encoder, images).tokens, native)
    outputs = []
    hooks = [b.register_forward_hook(lambda *call: outputs.append(call[2])) for b in encoder.layers[-1].blocks]
    two = SWIN.encode(encoder, images, blocks=2).tokens
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(two, torch.stack([encoder.norm(o) for o in outputs]).mean(0).flatten(1, 2))
    with pytest.raises(ModelError, match="only 2 have"):
        SWIN.encode(encoder, images, blocks=3)
    norm = SWIN.take_norm(encoder)
    torch.testing.assert_close(norm(SWIN.encode(encoder, images).tokens), native)


def test_layers_for_decay_count_blocks_over_all_stages():
    encoder = timm.create_model(V1, num_classes=3, img_size=64, embed_dim=24)
    layers, last = layer_ids(encoder)
    assert last == 13
    assert layers["patch_embed.proj.weight"] == 0
    assert layers["layers.0.blocks.0.mlp.fc1.weight"] == 1
    assert layers["layers.1.downsample.reduction.weight"] == layers["layers.1.blocks.0.norm1.bias"] == 3
    assert layers["layers.3.blocks.1.attn.qkv.weight"] == 12
    assert {layers[name] for name in layers if name.startswith(("norm", "head"))} == {13}
