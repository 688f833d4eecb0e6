"""Features in one piece and batch by batch."""

import pytest
import torch
from classifiers import DIGIT_PIXELS, batches, digit_classifier

from maekit.errors import ModelError
from maekit.inference.features import extract, stream
from maekit.models.classifier import Classifier
from maekit.models.encoder import ImageEncoder
from tiny import model_config


@pytest.mark.parametrize("kind", ["pooled", "class", "patches"])
def test_batches_one_by_one_give_what_all_give_at_once(digits_model: Classifier, kind):
    seen = batches("digits:test", digits_model)
    whole = extract(digits_model, seen, kind)
    parts = list(stream(digits_model, seen, kind))
    assert len(parts) == len(seen)
    assert torch.equal(torch.cat([part.vectors for part in parts]), whole.vectors)
    assert whole.indices.tolist() == list(range(360))
    assert whole.vectors.shape == ((360, 16, 16) if kind == "patches" else (360, 16))


def test_features_carry_no_gradient(digits_model: Classifier):
    assert not next(stream(digits_model, batches("digits:test", digits_model))).vectors.requires_grad
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(("pooling", "kind"), [("mean", "pooled"), ("class", "class")])
def test_a_classifiers_features_are_what_its_head_sees(pooling, kind):
    model = digit_classifier(pooling)
    torch.nn.init.normal_(model.norm.weight) if pooling == "mean" else None
    seen = batches("digits:test", model)[0]
    images = model.standardise(seen.images)
    with torch.no_grad():
        torch.testing.assert_close(model.head(extract(model, [seen], kind).vectors), model(images))


def test_a_class_token_that_is_not_there_is_refused():
    model = ImageEncoder(model_config(**DIGIT_PIXELS, class_token=False), mean=(0.5,), std=(0.5,)).eval()
    with pytest.raises(ModelError, match="no class token"):
        extract(model, batches("digits:test", model), "class")
