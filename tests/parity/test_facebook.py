"""Files of the paper's released code against what that code made of the same images."""

import pytest
import torch

from maekit import objective
from maekit.config import TargetConfig
from maekit.config.verbs import WeightsOptions
from maekit.models.classifier import Classifier
from maekit.models.encoder import ImageEncoder
from maekit.patches import take
from maekit.weights.load import load, reconstructor

HEADS = WeightsOptions(heads=3, decoder_heads=4)


@pytest.fixture(scope="module")
def prediction(recorded, fixture_path):
    example = recorded("facebook_mae")
    model = reconstructor(fixture_path("facebook_mae_full"), HEADS)
    with torch.no_grad():
        return model, example, model(example["images"], example["masked"])


def test_predictions_of_hidden_patches(prediction):
    _, example, found = prediction
    expected = take(example["prediction"], found.index)
    assert torch.allclose(found.patches, expected, atol=1e-4, rtol=0)
    assert found.patches.std() > 0.1  # not two silent models


@pytest.mark.parametrize(("pixels", "recording"), [("raw", "loss_pixels"), ("normalised", "loss_normalised_pixels")])
def test_losses(prediction, pixels, recording):
    model, example, found = prediction
    goal = objective.build(model.mask, TargetConfig(kind=pixels), model.grid, model.geometry)
    loss = goal.loss(example["images"], found.patches, found.index)
    assert loss.item() == pytest.approx(example[recording].item(), abs=1e-4)


@pytest.mark.parametrize("name", ["facebook_mae_full", "facebook_mae_encoder_only"])
def test_features_of_whole_images(recorded, fixture_path, name):
    example, model = recorded("facebook_mae"), load(fixture_path(name), HEADS)
    with torch.no_grad():
        tokens = model.encoder.forward_features(example["images"])
    assert torch.allclose(tokens, example["features_unmasked"], atol=1e-4, rtol=0)


def test_an_encoder_alone_is_an_encoder(fixture_path):
    assert type(load(fixture_path("facebook_mae_encoder_only"), HEADS)) is ImageEncoder


@pytest.mark.parametrize(("name", "pooling"), [("pooled", "mean"), ("cls_token", "class")])
def test_classifiers(recorded, fixture_path, name, pooling):
    example = recorded(f"facebook_finetuned_{name}")
    model = load(fixture_path(f"facebook_finetuned_{name}"), HEADS)
    assert isinstance(model, Classifier)
    assert model.pooling == pooling
    with torch.no_grad():
        assert torch.allclose(model(example["images"]), example["logits"], atol=1e-4, rtol=0)
