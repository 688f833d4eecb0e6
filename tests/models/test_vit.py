"""The ViT family: encoding visible patches is exactly what the native timm model does with them."""

import pytest
import timm
import torch
from timm.models.eva import Eva
from torch import Tensor, nn

import tiny
from maekit.config import MaskConfig
from maekit.errors import ModelError
from maekit.masking import draw
from maekit.models.family import Shown, features, grid_of
from maekit.models.vit import VIT
from maekit.patches import split, take

VARIANTS = {
    "class token": {},
    "no class token": {"class_token": False},
    "registers": {"register_tokens": 3},
    "registers alone": {"class_token": False, "register_tokens": 2},
    "square": {"image_size": 16},
    "oblong patches": {"patch_size": (4, 8)},
    "one channel": {"channels": 1},
    "five channels": {"channels": 5},
    "learned positions": {"positions": "learned"},
    "1-d positions": {"positions": "sincos1d"},
    "prefix without positions": {"encoder": "vit_base_patch14_reg4_dinov2", "register_tokens": 4},
    "norm before the blocks": {"encoder": "vit_base_patch32_clip_224"},
    "deit": {"encoder": "deit3_small_patch16_224"},
    "layer scale": {"layer_scale": 1e-5},
    "channel tokens": {"channel_tokens": True, "register_tokens": 1},
    "channel tokens, learned positions, 2 channels": {"channel_tokens": True, "channels": 2, "positions": "learned"},
    "rotary": {"positions": "rotary"},
    "rotary, layer scale, registers": {"positions": "rotary", "layer_scale": 0.1, "register_tokens": 2},
    "rotary, no prefix, oblong patches": {"positions": "rotary", "class_token": False, "patch_size": (4, 8)},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def variant(request):
    """(config, encoder with no two weights alike, images, masked)."""
    config = tiny.model_config(**request.param)
    torch.manual_seed(0)
    encoder = VIT.build(config).eval()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    images = torch.randn(3, config.channels, *config.image_hw)
    grid = grid_of(VIT, encoder, config)
    return config, encoder, images, draw(MaskConfig(ratio=0.6), grid, torch.arange(3), config.planes)


def encode(encoder, images, masked, **options):
    return VIT.encode_visible(encoder, nn.Identity(), Shown(images, masked, split(masked)[0], **options))


class Kept(nn.Module):
    """Patch dropout as timm's encoders with rotary positions expect it, of what a mask hides."""

    def __init__(self, visible, prefix):
        super().__init__()
        self.visible, self.prefix = visible, prefix

    def forward(self, tokens):
        kept = take(tokens[:, self.prefix :], self.visible)
        return torch.cat([tokens[:, : self.prefix], kept], dim=1), self.visible


def plainly(encoder, images, visible):
    """Embed everything as timm does, keep what is visible, run the blocks."""
    if isinstance(encoder, Eva):
        encoder.patch_drop = Kept(visible, encoder.num_prefix_tokens)
        tokens = encoder.forward_features(images)
        encoder.patch_drop = None
        return tokens
    tokens = encoder._pos_embed(encoder.patch_embed(images))
    prefix = encoder.num_prefix_tokens
    tokens = torch.cat([tokens[:, :prefix], take(tokens[:, prefix:], visible)], dim=1)
    return encoder.norm(encoder.blocks(encoder.norm_pre(tokens)))


def test_hidden_patches_are_left_out_exactly(variant):
    _, encoder, images, masked = variant
    latents = encode(encoder, images, masked)
    visible, _ = split(masked)
    assert latents.tokens.shape[1] == encoder.num_prefix_tokens + visible.shape[1]
    assert torch.equal(latents.index, visible)
    torch.testing.assert_close(latents.tokens, plainly(encoder, images, visible), atol=1e-5, rtol=1e-5)


def test_with_nothing_hidden_it_is_the_native_model(variant):
    _, encoder, images, masked = variant
    visible = torch.arange(masked.shape[1]).expand(3, -1)
    latents = VIT.encode_visible(encoder, nn.Identity(), Shown(images, torch.zeros_like(masked), visible))
    torch.testing.assert_close(latents.tokens, encoder.forward_features(images), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(VIT.encode(encoder, images).tokens, latents.tokens, atol=1e-5, rtol=1e-5)


def test_hidden_pixels_are_never_looked_at(variant):
    config, encoder, images, masked = variant
    height, width = VIT.unit(encoder, config)
    grid = masked.view(3, *grid_of(VIT, encoder, config))
    pixels = grid.repeat_interleave(height, 1).repeat_interleave(width, 2).view(3, config.planes, *config.image_hw)
    spoilt = images.masked_fill(pixels, float("nan"))
    assert torch.equal(encode(encoder, images, masked).tokens, encode(encoder, spoilt, masked).tokens)


def test_maps_are_the_outputs_of_the_blocks_after_the_norm(variant):
    config, encoder, images, masked = variant
    latents = encode(encoder, images, masked, maps=(0, 2))
    assert len(latents.maps) == 2
    assert torch.equal(latents.maps[1], latents.tokens)
    first = encode(encoder, images, masked, maps=(-1, 0, 2))
    assert torch.equal(first.maps[1], latents.maps[0])
    entering: list[Tensor] = []
    hook = encoder.blocks[0].register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0]))
    encode(encoder, images, masked)
    hook.remove()
    assert torch.equal(first.maps[0], encoder.norm(entering[0]))
    shallow = encoder.blocks[:1]
    encoder.blocks = shallow
    torch.testing.assert_close(latents.maps[0], encode(encoder, images, masked).tokens)
    assert config.depth == 3


def test_features_are_means_over_patches_and_last_blocks():
    torch.manual_seed(0)
    encoder = VIT.build(tiny.model_config(register_tokens=2)).eval()
    images = torch.randn(2, 3, 16, 24)
    tokens = encoder.forward_features(images)
    torch.testing.assert_close(features(encoder, images), tokens[:, 3:].mean(dim=1))
    torch.testing.assert_close(features(encoder, images, "class"), tokens[:, 0])
    assert features(encoder, images, "patches").shape == (2, 24, 32)
    earlier = encoder.norm(encoder.blocks[:2](encoder.norm_pre(encoder._pos_embed(encoder.patch_embed(images)))))
    torch.testing.assert_close(features(encoder, images, "class", blocks=2), (tokens[:, 0] + earlier[:, 0]) / 2)
    with pytest.raises(ModelError, match="last 4 blocks: the encoder has 3"):
        features(encoder, images, blocks=4)


def test_class_features_of_an_encoder_without_class_token_are_refused():
    encoder = VIT.build(tiny.model_config(class_token=False))
    with pytest.raises(ModelError, match="has no class token; take pooled"):
        features(encoder, torch.zeros(1, 3, 16, 24), "class")


def test_initial_weights_are_the_released_codes():
    torch.manual_seed(0)
    encoder = VIT.build(tiny.model_config(width=96, register_tokens=4))
    for name, module in encoder.named_modules():
        if isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
        if isinstance(module, nn.Linear) or name == "patch_embed.proj":
            weight = module.weight.flatten(1)
            bound = (6 / sum(weight.shape)) ** 0.5
            assert weight.abs().max() <= bound
            assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
            assert (module.bias == 0).all()
    assert torch.cat([encoder.cls_token, encoder.reg_token], 1).std().item() == pytest.approx(0.02, rel=0.15)


def test_fixed_positions_are_not_trained_and_learned_ones_are():
    for positions, trained in (("sincos", False), ("sincos1d", False), ("learned", True)):
        encoder = VIT.build(tiny.model_config(positions=positions))
        assert encoder.pos_embed.requires_grad is trained
        others = [p.requires_grad for name, p in encoder.named_parameters() if name != "pos_embed"]
        assert all(others)


def test_rotary_positions_are_timms_and_of_the_names_own_size():
    sizes = {"encoder": "vit_small_patch16_224", "width": None, "heads": None, "layer_scale": 1e-5}
    encoder = VIT.build(tiny.model_config(positions="rotary", **sizes))
    theirs = timm.create_model(
        "vit_small_patch16_rope_224", img_size=(16, 24), patch_size=4, depth=3, use_fc_norm=False, num_classes=0
    )
    theirs.load_state_dict(encoder.state_dict(), strict=True)
    images = torch.randn(2, 3, 16, 24)
    assert torch.equal(theirs(images), encoder(images))
    assert encoder.blocks[0].attn.num_heads == 6


def test_rotary_positions_need_no_table_at_another_size():
    small = VIT.build(tiny.model_config(positions="rotary"))
    large = VIT.build(tiny.model_config(positions="rotary", image_size=(32, 24)))
    large.load_state_dict(small.state_dict(), strict=True)
    images = torch.randn(2, 3, 32, 24)
    above = torch.arange(24).expand(2, -1)
    masked = torch.arange(48).expand(2, -1) >= 24
    latents = VIT.encode_visible(large, nn.Identity(), Shown(images, masked, above))
    torch.testing.assert_close(latents.tokens, small.forward_features(images[:, :, :16]), atol=1e-5, rtol=1e-5)


def test_order_of_patches_matters_to_rotary_positions_alone():
    """Attention without positions is blind to order: what is equal elsewhere must differ by its place."""
    encoder = VIT.build(tiny.model_config(positions="rotary")).eval()
    patch, other = torch.randn(2, 1, 3, 4, 4)
    images = torch.zeros(2, 3, 16, 24)
    images[:, :, :4, :4] = patch
    images[0, :, 4:8, 4:8], images[1, :, 12:, 20:] = other, other
    class_tokens = encoder.forward_features(images)[:, 0]
    assert not torch.allclose(class_tokens[0], class_tokens[1])


def test_layer_scale_begins_where_it_is_told():
    for positions, names in (("sincos", ("ls1.gamma", "ls2.gamma")), ("rotary", ("gamma_1", "gamma_2"))):
        encoder = VIT.build(tiny.model_config(positions=positions, layer_scale=0.3))
        factors = {name: p for name, p in encoder.named_parameters() if name.endswith(names)}
        assert len(factors) == 6
        assert all((p == 0.3).all() for p in factors.values())
        assert not any("gamma" in name for name in VIT.build(tiny.model_config(positions=positions)).state_dict())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": (16, 22)}, "width 22 is not a multiple of the 4-px patch; take 20 or 24"),
        ({"heads": 5}, "model.encoder vit_tiny_patch16_224: "),
        ({"width": 30, "heads": 2}, "multiple of 4, not 30"),
        ({"window": 7}, "model.window: .* leave it out"),
        ({"encoder": "deit_tiny_distilled_patch16_224"}, "plain patch and position embeddings"),
        ({"encoder": "vit_base_r50_s16_224"}, "model.encoder"),
        ({"positions": "rotary", "image_size": (16, 22)}, "width 22 is not a multiple of the 4-px patch; take 20"),
        ({"positions": "rotary", "width": 36, "heads": 6}, "heads whose width is a multiple of 4, not 6"),
        ({"positions": "rotary", "channel_tokens": True}, "rotary: does not tell the channels of model.channel_tokens"),
        (
            {"channel_tokens": True, "image_size": (18, 24)},
            "height 18 is not a multiple of the 4-px patch",
        ),
        ({"positions": "rotary", "encoder": "vit_base_patch32_clip_224"}, "positions rotary: .* take a plain one"),
        ({"positions": "rotary", "encoder": "deit3_small_patch16_224"}, "positions rotary: .* take a plain one"),
        ({"positions": "rotary", "encoder": "deit_tiny_distilled_patch16_224"}, "plain patch and position embeddings"),
    ],
)
def test_sizes_and_encoders_that_do_not_fit_get_one_line(changes, words):
    with pytest.raises(ModelError, match=words) as caught:
        VIT.build(tiny.model_config(**changes))
    assert "\n" not in str(caught.value)
