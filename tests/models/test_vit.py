"""The ViT family: encoding visible patches is exactly what the native timm model does with them."""

import pytest
import torch
from torch import Tensor, nn

import tiny
from maekit.config import MaskConfig
from maekit.errors import ModelError
from maekit.masking import draw
from maekit.models.family import Shown, features
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
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def variant(request):
    """(config, encoder with no two weights alike, images, masked)."""
    config = tiny.model_config(**request.param)
    torch.manual_seed(0)
    encoder = VIT.build(config).eval()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    unit = VIT.unit(encoder, config)
    grid = config.image_hw[0] // unit[0], config.image_hw[1] // unit[1]
    images = torch.randn(3, config.channels, *config.image_hw)
    return config, encoder, images, draw(MaskConfig(ratio=0.6), grid, torch.arange(3))


def encode(encoder, images, masked, **options):
    return VIT.encode_visible(encoder, nn.Identity(), Shown(images, masked, split(masked)[0], **options))


def plainly(encoder, images, visible):
    """Embed everything as timm does, keep what is visible, run the blocks."""
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
    grid = masked.view(3, config.image_hw[0] // height, config.image_hw[1] // width)
    pixels = grid.repeat_interleave(height, 1).repeat_interleave(width, 2)[:, None]
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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": (16, 22)}, "width 22 is not a multiple of the 4-px patch; take 20 or 24"),
        ({"heads": 5}, "model.encoder vit_tiny_patch16_224: "),
        ({"width": 30, "heads": 2}, "multiple of 4, not 30"),
        ({"window": 7}, "model.window: .* leave it out"),
        ({"encoder": "deit_tiny_distilled_patch16_224"}, "plain patch and position embeddings"),
        ({"encoder": "vit_base_r50_s16_224"}, "model.encoder"),
    ],
)
def test_sizes_and_encoders_that_do_not_fit_get_one_line(changes, words):
    with pytest.raises(ModelError, match=words) as caught:
        VIT.build(tiny.model_config(**changes))
    assert "\n" not in str(caught.value)
