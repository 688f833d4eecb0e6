"""Nearest neighbours against scikit-learn's, and the effective rank by hand."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from maekit.engine import evaluate


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    features = torch.from_numpy(images).float()
    return features[:500], torch.from_numpy(labels[:500]), features[500:800]


@pytest.mark.parametrize("k", [1, 20, 100])
def test_predictions_are_those_of_scikit_learn(digits, k):
    memory, labels, judged = digits
    oracle = KNeighborsClassifier(k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    oracle.fit(memory.numpy(), labels.numpy())
    predicted = evaluate.knn_predict(memory, labels, judged, k=k, classes=10)
    np.testing.assert_array_equal(predicted.numpy(), oracle.predict(judged.numpy()))


def test_several_k_at_once_and_in_chunks_are_each_alone(digits, monkeypatch):
    memory, labels, judged = digits
    monkeypatch.setattr(evaluate, "_CHUNK_ENTRIES", 7 * len(memory))
    found = evaluate.knn_predict_each(memory, labels, judged, ks=(100, 5, 10_000), classes=10)
    monkeypatch.undo()
    for k, predicted in found.items():
        assert torch.equal(predicted, evaluate.knn_predict(memory, labels, judged, k=k, classes=10))


def test_a_low_temperature_listens_to_the_nearest_alone(digits):
    memory, labels, judged = digits
    cold = evaluate.knn_predict(memory, labels, judged, k=50, temperature=1e-2, classes=10)
    nearest = evaluate.knn_predict(memory, labels, judged, k=1, classes=10)
    even = evaluate.knn_predict(memory, labels, judged, k=50, temperature=100.0, classes=10)
    assert (cold != nearest).sum() < (even != nearest).sum()


def test_rankme_counts_directions():
    assert evaluate.rankme(torch.ones(8, 5)) == pytest.approx(1, abs=1e-3)
    assert evaluate.rankme(torch.eye(6)) == pytest.approx(6, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_neighbours_are_judged_in_float32_whatever_precision_surrounds_them(dtype):
    features = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 4
    plain = evaluate.knn_predict(features, labels, features, k=5, classes=4)
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(evaluate.knn_predict(features, labels, features, k=5, classes=4), plain)
        assert torch.isfinite(torch.tensor(evaluate.rankme(features.bfloat16())))
