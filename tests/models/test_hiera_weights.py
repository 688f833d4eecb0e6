"""Hiera masked autoencoders as files: those of 16-px predictions, and those from before there was a choice."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import maekit
from maekit.config import DecoderConfig, MaskConfig, ModelConfig, TargetConfig
from maekit.models.mae import MaskedAutoencoder
from maekit.weights import native
from maekit.weights.stored import FACTS


def written(path, *, pool_units):
    torch.manual_seed(0)
    decoder = DecoderConfig(kind="self", width=16, depth=1, heads=2)
    config = ModelConfig(encoder="hiera_tiny_224", image_size=64, width=16, decoder=decoder, pool_units=pool_units)
    target = TargetConfig(kind="normalised")
    model = MaskedAutoencoder(config, target, MaskConfig(ratio=0.5), mean=(0.5,) * 3, std=(0.5,) * 3).eval()
    native.save(model, path)
    return model


@pytest.mark.parametrize("pool_units", [False, True])
def test_a_file_brings_its_patches_back(tmp_path, pool_units):
    model = written(tmp_path / "w.safetensors", pool_units=pool_units)
    loaded = maekit.load(tmp_path / "w.safetensors")
    assert (loaded.unit, loaded.patch) == ((32, 32), (32, 32) if pool_units else (16, 16))
    images, masked = torch.rand(1, 3, 64, 64), torch.tensor([[True, False, False, True]])
    torch.testing.assert_close(maekit.reconstruct(loaded, images, masked), maekit.reconstruct(model, images, masked))


def test_a_file_that_does_not_say_predicts_whole_units(tmp_path):
    path = tmp_path / "w.safetensors"
    model = written(path, pool_units=True)
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()[FACTS])
    del facts["model"]["pool_units"]
    save_file(load_file(path), path, metadata={"format": "pt", FACTS: json.dumps(facts)})
    loaded = maekit.load(path)
    assert loaded.patch == model.patch == (32, 32)
    assert all(torch.equal(one, other) for one, other in zip(loaded.parameters(), model.parameters(), strict=True))


def test_only_whole_hidden_units_are_painted(tmp_path):
    model = written(tmp_path / "w.safetensors", pool_units=False)
    images, masked = torch.rand(1, 3, 64, 64), torch.tensor([[True, False, False, True]])
    changed = (maekit.reconstruct(model, images, masked) - images).abs().amax(dim=1) > 1e-3
    hidden = masked.view(1, 2, 2).repeat_interleave(32, 1).repeat_interleave(32, 2)
    assert not changed[~hidden].any()
    assert changed[hidden].float().mean() > 0.9
