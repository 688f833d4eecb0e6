"""transformers' models against maekit's, built at random and carried in both directions."""

import json

import pytest
import torch

import tiny
from maekit.config import MaskConfig, TargetConfig
from maekit.config.verbs import ConvertOptions
from maekit.errors import WeightsError
from maekit.inference.convert import convert
from maekit.patches import take
from maekit.weights import native
from maekit.weights.blueprint import Blueprint
from maekit.weights.load import load

transformers = pytest.importorskip("transformers")

VIT = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96, "patch_size": 8,
}  # fmt: skip
MAE = {
    **VIT, "image_size": 32, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 4, "decoder_intermediate_size": 64,
}  # fmt: skip
CLOSE = {"atol": 1e-4, "rtol": 0}


@pytest.fixture(autouse=True)
def quiet_and_random():
    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def scrambled(model):
    """The model in eval mode with every parameter but positions drawn wide, so that each one matters."""
    for name, parameter in model.named_parameters():
        if "pos" not in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def masks(images=3):
    """(masked bool [N, L], the noise that makes transformers hide the same)."""
    masked = torch.zeros(images, 16, dtype=torch.bool).scatter(1, torch.rand(images, 16).argsort(1)[:, :12], True)
    return masked, masked.float() + torch.rand(images, 16) / 2


def assert_same_predictions(theirs, ours):
    images, (masked, noise) = torch.randn(3, 3, 32, 32), masks()
    with torch.no_grad():
        expected = theirs(images, noise=noise)
        found = ours(images, masked)
    assert torch.equal(expected.mask.bool(), masked)
    assert torch.allclose(found.patches, take(expected.logits, found.index), **CLOSE)


def test_pretraining_model_in(tmp_path):
    theirs = scrambled(transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**MAE, norm_pix_loss=True)))
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path)
    assert ours.target.kind == "normalised"
    assert_same_predictions(theirs, ours)


def test_pretraining_model_out_and_back(tmp_path):
    config = tiny.model_config(image_size=32, patch_size=8)
    model = native.build(
        Blueprint("masked_autoencoder", config, (0.5,) * 3, (0.2,) * 3, TargetConfig(kind="raw"), MaskConfig())
    )
    scrambled(model)
    native.save(model, tmp_path / "model.safetensors")
    folder = tmp_path / "hf"
    convert(ConvertOptions(weights=str(tmp_path), to="huggingface", out=str(folder)))
    theirs, loading = transformers.ViTMAEForPreTraining.from_pretrained(folder, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert_same_predictions(theirs.eval(), model)
    tiny_back = load(folder)
    assert tiny_back.config == model.config
    assert all(torch.equal(value, tiny_back.state_dict()[name]) for name, value in model.state_dict().items())
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    assert list(processor.image_mean) == pytest.approx([0.5] * 3)


def test_encoder_in(tmp_path):
    theirs = scrambled(transformers.ViTMAEModel(transformers.ViTMAEConfig(**MAE, mask_ratio=0.0)))
    theirs.save_pretrained(tmp_path)
    images, ours = torch.randn(2, 3, 32, 32), load(tmp_path)
    with torch.no_grad():
        expected = theirs(images, noise=torch.arange(16.0).expand(2, -1)).last_hidden_state
        assert torch.allclose(ours.encoder.forward_features(images), expected, **CLOSE)


def test_encoder_out(tmp_path):
    model = native.build(Blueprint("encoder", tiny.model_config(), (0.5,) * 3, (0.2,) * 3))
    scrambled(model)
    native.save(model, tmp_path / "model.safetensors")
    convert(ConvertOptions(weights=str(tmp_path), to="huggingface", out=str(tmp_path / "hf")))
    theirs = transformers.ViTModel.from_pretrained(tmp_path / "hf", add_pooling_layer=False).eval()
    images = torch.randn(2, 3, *model.config.image_hw)
    with torch.no_grad():
        found = theirs(images).last_hidden_state
        assert torch.allclose(model.encoder.forward_features(images), found, **CLOSE)


@pytest.fixture
def classifier(tmp_path):
    labels = {0: "jay", 1: "kite", 2: "owl"}
    config = transformers.ViTConfig(**VIT, image_size=(32, 16), id2label=labels, layer_norm_eps=1e-3)
    theirs = scrambled(transformers.ViTForImageClassification(config))
    theirs.save_pretrained(tmp_path / "in")
    return theirs, load(tmp_path / "in")


def test_classifier_in(classifier):
    theirs, ours = classifier
    images = torch.randn(3, 3, 32, 16)
    with torch.no_grad():
        assert torch.allclose(ours(images), theirs(images).logits, **CLOSE)
    assert ours.classes == ("jay", "kite", "owl")


def test_classifier_out(classifier, tmp_path):
    theirs, ours = classifier
    convert(ConvertOptions(weights=str(tmp_path / "in"), to="huggingface", out=str(tmp_path / "out")))
    again = transformers.ViTForImageClassification.from_pretrained(tmp_path / "out").eval()
    assert again.config.id2label == {0: "jay", 1: "kite", 2: "owl"}
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in theirs.state_dict().items())
    assert load(tmp_path / "out").config == ours.config


def test_names_of_newer_versions(classifier, tmp_path):
    """transformers 5 has other names in memory, which end up in files where people save state dicts themselves."""
    theirs, ours = classifier
    torch.save(theirs.state_dict(), tmp_path / "in" / "pytorch_model.bin")
    (tmp_path / "in" / "model.safetensors").unlink()
    again = load(tmp_path / "in")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in ours.state_dict().items())


@pytest.mark.usefixtures("classifier")
def test_preprocessing_is_kept(tmp_path):
    values = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.4]}
    (tmp_path / "in" / "preprocessor_config.json").write_text(json.dumps(values))
    mean, std = load(tmp_path / "in").standardise.values()
    assert mean == pytest.approx((0.1, 0.2, 0.3))
    assert std == pytest.approx((0.5, 0.5, 0.4))


def test_shards(tmp_path):
    theirs = scrambled(transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**MAE)))
    theirs.save_pretrained(tmp_path, max_shard_size="40KB")
    assert not (tmp_path / "model.safetensors").exists()
    assert_same_predictions(theirs, load(tmp_path))


def test_an_activation_that_maekit_has_not_is_refused(tmp_path):
    config = transformers.ViTMAEConfig(**MAE, hidden_act="gelu_new")
    transformers.ViTMAEForPreTraining(config).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="hidden_act is gelu_new"):
        load(tmp_path)
