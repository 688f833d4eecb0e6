"""A Swin's weights at other windows: as timm loads them, only where that is asked for."""

import re

import pytest
import timm
import torch
from timm.models import swin_transformer, swin_transformer_v2

import tiny
from maekit import storage
from maekit.config import MaskConfig, ModelConfig, TargetConfig
from maekit.config.verbs import WeightsOptions
from maekit.errors import MaekitError, WeightsError
from maekit.models.encoder import ImageEncoder
from maekit.models.mae import MaskedAutoencoder
from maekit.weights import native
from maekit.weights.load import load

V1, V2 = "swin_tiny_patch4_window7_224", "swinv2_tiny_window16_256"
HALF = (0.5,) * 3


def swin(encoder: str = V1, size=192, window: int | None = 6, method: str = "dense") -> ModelConfig:
    decoder = tiny.decoder_config(kind="linear" if method == "dense" else "self")
    return ModelConfig(encoder=encoder, image_size=size, window=window, width=24, swin_method=method, decoder=decoder)


def write(config: ModelConfig, path, kind: str = "masked_autoencoder"):
    torch.manual_seed(0)
    if kind == "masked_autoencoder":
        uniform = config.swin_method == "uniform"
        mask = MaskConfig(kind="one_in_2x2", ratio=0.75) if uniform else MaskConfig(ratio=0.6)
        model = MaskedAutoencoder(config, TargetConfig(kind="raw"), mask, mean=HALF, std=HALF)
    else:
        model = ImageEncoder(config, mean=HALF, std=HALF)
    for name, parameter in model.named_parameters():  # biases that are seen
        if "relative_position_bias_table" in name or "cpb_mlp" in name or not parameter.any():
            torch.nn.init.normal_(parameter, std=0.5)
    native.save(model, path)
    return model


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # of torch, at timm's code
@pytest.mark.parametrize(
    ("config", "image_size", "window"),
    [
        (swin(), 224, 7),  # SimMIM's change
        (swin(), 192, 12),
        (swin(size=224, window=7), 192, 6),
        (swin(size=(96, 192), window=6), (64, 128), 8),
        (swin(size=256, window=16, method="uniform"), 224, 7),
        (swin(size=128, window=16, method="uniform"), 256, 16),
        (swin(size=224, window=None), 384, 12),
        (swin(V2, 256, 16), 192, 6),
        (swin(V2, 256, 8), 256, 16),
        (swin("swin_s3_tiny_224", 224, None), 224, 14),
    ],
)
def test_features_are_those_of_timm_with_the_new_window(config, image_size, window, tmp_path):
    own = write(config, tmp_path / "w.safetensors")
    options = WeightsOptions(image_size=image_size, window=window)
    model = load(tmp_path / "w.safetensors", options, decoder=False)
    assert (model.config.window, model.config.image_hw) == (window, model.encoder.patch_embed.img_size)
    images = torch.randn(1, 3, *model.config.image_hw)
    with torch.no_grad():
        found = model.encoder.forward_features(images)
        for theirs in _timms(own, image_size, window):
            torch.testing.assert_close(found, theirs.forward_features(images), atol=1e-5, rtol=1e-5)


def _timms(own, image_size, window):
    """timm's own ways there: weights loaded into another model, where windows are square, and a model changed."""
    name, state = own.config.encoder, own.encoder.state_dict()
    module = swin_transformer_v2 if name.startswith("swinv2") else swin_transformer
    loaded = timm.create_model(name, num_classes=0, img_size=image_size, window_size=window, embed_dim=24)
    if own.config.image_hw[0] == own.config.image_hw[1]:
        loaded.load_state_dict(module.checkpoint_filter_fn(state, loaded), strict=True)
        yield loaded.eval()
    own.encoder.set_input_size(img_size=image_size, window_size=window)
    yield own.encoder.eval()


def test_offsets_near_by_keep_their_bias_and_far_ones_lie_between(tmp_path):
    own = write(swin(), tmp_path / "w.safetensors")
    tables = [
        model.encoder.layers[3].blocks[0].attn.relative_position_bias_table.unflatten(0, (-1, side))
        for model, side in (
            (own, 11), (load(tmp_path / "w.safetensors", WeightsOptions(image_size=224, window=7), decoder=False), 13)
        )
    ]  # fmt: skip
    torch.testing.assert_close(tables[1][5:8, 5:8], tables[0][4:7, 4:7])
    assert tables[1].max() <= tables[0].max() + 1e-6
    torch.testing.assert_close(tables[1][0, 0], tables[0][0, 0], atol=1e-4, rtol=0)


def test_the_whole_autoencoder_can_be_taken_along_and_is_rebuilt_from_what_it_says(tmp_path):
    write(swin(), tmp_path / "w.safetensors")
    model = load(tmp_path / "w.safetensors", WeightsOptions(image_size=224, window=7))
    assert isinstance(model, MaskedAutoencoder)
    native.save(model, tmp_path / "again.safetensors")
    again = load(tmp_path / "again.safetensors")
    masked = torch.zeros(1, 49, dtype=torch.bool)
    masked[:, :20] = True
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(again(images, masked).patches, model(images, masked).patches)
    assert again.config.window == 7


def test_the_own_window_changes_nothing(tmp_path):
    own = write(swin(), tmp_path / "w.safetensors")
    same = load(tmp_path / "w.safetensors", WeightsOptions(window=6))
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in own.state_dict().items())


@pytest.mark.parametrize(
    ("config", "image_size", "window", "expected"),
    [
        (swin(), 224, None, r"takes no height of 224 px with windows of 6 patches; .*; or --window 7 \(in finetune "
         r"--classifier\.window 7\), which resamples position biases$"),
        (swin(size=224, window=None), 256, None, r"256 px with windows of 7 patches; take 224 .*; or --window 8 "),
        (swin(), 224, 6, r"windows of 6 patches do not divide images of 224x224 px; take --window 7 \(in finet"),
        (swin(), None, 7, r"windows of 7 patches do not divide images of 192x192 px; take --window 6 "),
        (swin(size=256, window=16), 512, None, r"for windows of 8 patches where images of 512x512 px have 16; "
         r"--window 16 \(in finetune --classifier\.window 16\) resamples them$"),
        (swin(size=256, window=8), (64, 256), None, r"for windows of 8 patches where images of 64x256 px have 4x8; --"),
        (swin(), 200, 7, r"image_size: swin_tiny_patch4_window7_224 takes no height of 200 px with windows of 7 "),
        (tiny.model_config(), None, 7, r"--window \(in finetune --classifier\.window\) belongs to Swin; vit_tiny_"),
        (tiny.model_config(encoder="hiera_tiny_224", image_size=64, patch_size=None, width=16, depth=None, heads=None),
         None, 7, r"belongs to Swin; hiera_tiny_224 has no windows; leave it out$"),
    ],
)  # fmt: skip
def test_windows_that_cannot_be_are_one_line_that_says_what_can(config, image_size, window, expected, tmp_path):
    write(config, tmp_path / "w.safetensors", "encoder")
    with pytest.raises(MaekitError, match=expected) as error:
        load(tmp_path / "w.safetensors", WeightsOptions(image_size=image_size, window=window))
    assert "\n" not in str(error.value)


def test_timms_own_weights_without_a_card_change_their_window(tmp_path):
    native_model = timm.create_model(V1, num_classes=0, embed_dim=24)
    torch.save(native_model.state_dict(), tmp_path / "w.pth")
    model = load(tmp_path / "w.pth", WeightsOptions(image_size=192, window=6))
    assert (model.config.window, model.config.image_hw) == (6, (192, 192))
    assert len(model.encoder.layers[0].blocks[0].attn.relative_position_bias_table) == 121


def test_a_table_of_no_window_is_told_with_its_shape(tmp_path):
    model = write(swin(), tmp_path / "w.safetensors", "encoder")
    name = "encoder.layers.0.blocks.0.attn.relative_position_bias_table"
    tensors = {**model.state_dict(), name: torch.zeros(50, 3)}
    storage.write_tensors(tmp_path / "w.safetensors", tensors, native.metadata(model))
    with pytest.raises(WeightsError, match=re.escape(f"{name} is [50, 3], the model's [169, 3]")):
        load(tmp_path / "w.safetensors", WeightsOptions(image_size=224, window=7))


def test_the_encoder_alone_of_an_autoencoder_needs_no_size_that_can_be_packed(tmp_path):
    write(swin(size=256, window=16, method="uniform"), tmp_path / "w.safetensors")
    options = WeightsOptions(image_size=224, window=7, resample_positions=True)
    with pytest.raises(MaekitError, match="uniform"):
        load(tmp_path / "w.safetensors", options)
    assert type(load(tmp_path / "w.safetensors", options, decoder=False)) is ImageEncoder
    assert isinstance(load(tmp_path / "w.safetensors"), MaskedAutoencoder)
