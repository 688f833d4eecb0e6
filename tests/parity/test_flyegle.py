"""Files of FlyEgle/MAE-pytorch against what that code made of the same images."""

import pytest
import torch

from maekit.config.verbs import InspectOptions, WeightsOptions
from maekit.errors import WeightsError
from maekit.inference.inspect import inspect
from maekit.patches import patchify, take
from maekit.weights.load import load, reconstructor

OPTIONS = WeightsOptions(heads=3, decoder_heads=4, image_size=32)


def test_restored_pixels_of_hidden_patches(recorded, fixture_path):
    example, model = recorded("flyegle_mae"), reconstructor(fixture_path("flyegle_mae"), OPTIONS)
    with torch.no_grad():
        found = model(example["images"], example["masked"])
    expected = take(patchify(example["restored"], model.unit), found.index)
    assert torch.allclose(found.patches, expected, atol=1e-4, rtol=0)
    assert model.target.kind == "raw"


def test_classifier(recorded, fixture_path):
    example, model = recorded("flyegle_finetuned"), load(fixture_path("flyegle_finetuned"), OPTIONS)
    with torch.no_grad():
        assert torch.allclose(model(example["images"]), example["logits"], atol=1e-4, rtol=0)


def test_another_size_keeps_the_mask_token_of_the_own_one(fixture_path):
    own = WeightsOptions(heads=3, decoder_heads=4)  # 224, which the file does not tell
    larger = WeightsOptions(heads=3, decoder_heads=4, image_size=448, resample_positions=True)
    before, after = (reconstructor(fixture_path("flyegle_mae"), options) for options in (own, larger))
    assert torch.equal(before.decoder.mask_token, after.decoder.mask_token)
    assert after.encoder.pos_embed.shape[1] == 1 + 56 * 56


def test_what_is_not_used_is_said(fixture_path):
    answer = inspect(InspectOptions(weights=str(fixture_path("flyegle_mae"))))
    unused = {"norm.weight", "norm.bias", "Decoder.norm.weight", "Decoder.norm.bias", "Decoder.cls_token"}
    unused |= {"Decoder.patch_embed.proj.weight", "Decoder.patch_embed.proj.bias"}
    assert set(answer.ignored) == unused
    assert "image size" in answer.assumed[0]


def test_one_further_tensor_is_refused(fixture_path, tmp_path):
    content = torch.load(fixture_path("flyegle_mae"), weights_only=True)
    content["state_dict"]["Encoder.blocks.0.ls1.gamma"] = torch.ones(48)
    torch.save(content, tmp_path / "more.pth")
    with pytest.raises(WeightsError, match=r"blocks\.0\.ls1\.gamma is unexpected"):
        load(tmp_path / "more.pth", OPTIONS)
