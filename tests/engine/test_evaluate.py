"""Nearest neighbours against scikit-learn's, and what spectra tell by hand."""

import numpy as np
import pytest
import scipy.linalg
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


def falling(power, images=3000, width=240):
    draw = torch.Generator().manual_seed(0)
    scale = torch.arange(1, width + 1).float() ** (-power / 2)
    return torch.randn(images, width, generator=draw) @ torch.diag(scale) + 5  # a mean that all share is no direction


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_alpha_req_is_the_exponent_of_the_power_law(power):
    assert evaluate.alpha_req(falling(power)) == pytest.approx(power, abs=0.1)
    assert evaluate.alpha_req(falling(power) * 100) == pytest.approx(power, abs=0.1)


def test_alpha_req_says_nothing_of_too_few_directions():
    few = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    assert np.isnan(evaluate.alpha_req(few))
    assert np.isnan(evaluate.alpha_req(torch.ones(50, 30)))
    flat = torch.randn(500, 1, generator=torch.Generator().manual_seed(0)).expand(-1, 30)
    assert np.isnan(evaluate.alpha_req(flat))  # one direction, and rounding


def views(kept, lost, images=200, count=8):
    """Features of images whose first `kept` values are the image's own, the others each view's; and a rotation."""
    draw = torch.Generator().manual_seed(0)
    own = torch.randn(images, 1, kept, generator=draw).expand(-1, count, -1)
    own = own + 0.1 * torch.randn(images, count, kept, generator=draw)
    rotation = torch.linalg.qr(torch.randn(kept + lost, kept + lost, generator=draw))[0]
    return torch.cat([own, 3 * torch.randn(images, count, lost, generator=draw)], dim=2) @ rotation


def test_lidar_is_the_rank_of_the_lda_matrix():
    found = views(4, 6)
    means = found.mean(dim=1).double().numpy()
    within = (found.double().numpy() - means[:, None]).reshape(-1, 10)
    between, inside = np.cov(means.T), within.T @ within / (200 * 7) + 1e-4 * np.eye(10)
    shares = scipy.linalg.eigh(between, inside, eigvals_only=True)
    shares = shares / shares.sum()
    assert evaluate.lidar(found) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-3)


def test_lidar_does_not_count_what_differs_between_views_of_one_image():
    assert evaluate.lidar(views(4, 16)) == pytest.approx(4, abs=0.2)
    assert evaluate.rankme(views(4, 16)[:, 0]) > 15
    assert evaluate.lidar(views(8, 16)) == pytest.approx(8, abs=0.3)
