"""Logistic regression against scikit-learn's, and what chooses its weight decay."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from maekit.engine import logistic


@pytest.fixture(scope="module")
def digits():
    """600 digits' pixels to learn from and 600 to predict, float64."""
    images, labels = load_digits(return_X_y=True)
    return images[:600], labels[:600], images[600:1200]


@pytest.mark.parametrize("weight_decay", [1e-1, 1e-2, 1e-3])
def test_coefficients_are_those_of_scikit_learn(digits, weight_decay):
    images, labels, others = digits
    scale = logistic.Standardisation.of(torch.from_numpy(images))
    scaled, scaled_others = scale(torch.from_numpy(images)), scale(torch.from_numpy(others))
    oracle = LogisticRegression(C=1 / (len(images) * weight_decay), tol=1e-9, max_iter=5000)
    oracle.fit(scaled.numpy(), labels)

    fitted = logistic.fit(scaled, torch.from_numpy(labels), classes=10, weight_decay=weight_decay)
    np.testing.assert_allclose(fitted.weight.T.numpy(), oracle.coef_, atol=2e-4)
    np.testing.assert_allclose(fitted.bias.numpy(), oracle.intercept_, atol=2e-4)
    np.testing.assert_array_equal(fitted.predict(scaled_others).numpy(), oracle.predict(scaled_others.numpy()))


def test_standardised_features_are_those_of_scikit_learn(digits):
    images = digits[0]
    varies = images.std(axis=0) > 0
    expected = StandardScaler().fit_transform(images)[:, varies]
    scaled = logistic.Standardisation.of(torch.from_numpy(images))(torch.from_numpy(images))
    np.testing.assert_allclose(scaled.numpy()[:, varies], expected, rtol=1e-3)


def test_single_precision_comes_to_the_same_predictions(digits):
    images, labels, others = (torch.from_numpy(part) for part in digits)
    guesses = []
    for kind in (torch.float32, torch.float64):
        scale = logistic.Standardisation.of(images.to(kind))
        fitted = logistic.fit(scale(images.to(kind)), labels, classes=10, weight_decay=1e-3)
        guesses.append(fitted.predict(scale(others.to(kind))))
    assert (guesses[0] != guesses[1]).sum() <= 1


def test_chunks_change_nothing(digits, monkeypatch):
    images, labels, _ = (torch.from_numpy(part) for part in digits)
    whole = logistic.fit(images / 16, labels, classes=10, weight_decay=1e-2)
    monkeypatch.setattr(logistic, "_CHUNK_ENTRIES", 70 * 10)
    in_parts = logistic.fit(images / 16, labels, classes=10, weight_decay=1e-2)
    torch.testing.assert_close(in_parts.weight, whole.weight, atol=1e-5, rtol=0)


def test_a_better_start_leads_to_the_same_end(digits):
    images, labels, _ = (torch.from_numpy(part) for part in digits)
    strong = logistic.fit(images / 16, labels, classes=10, weight_decay=1.0)
    cold = logistic.fit(images / 16, labels, classes=10, weight_decay=1e-2)
    warm = logistic.fit(images / 16, labels, classes=10, weight_decay=1e-2, start=strong)
    torch.testing.assert_close(warm.weight, cold.weight, atol=1e-4, rtol=0)


def test_noise_asks_for_a_strong_weight_decay_and_clean_features_for_a_weak_one():
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 2
    signal = labels[:, None] * 2.0 - 1
    noisy = torch.cat([signal + 2 * torch.randn(200, 1, generator=draw), torch.randn(200, 150, generator=draw)], dim=1)
    choose = {"classes": 2, "grid": (1e-6, 1e-3, 0.3), "seed": 0}
    assert logistic.choose_weight_decay(noisy, labels, **choose) == 0.3
    torn = torch.cat([signal * 1e-3, 0.5 * torch.randn(200, 1, generator=draw)], dim=1)
    assert logistic.choose_weight_decay(torn, labels, **choose) == 1e-6


def test_one_image_a_class_leaves_none_to_choose_by():
    assert logistic.choose_weight_decay(torch.eye(4), torch.arange(4), classes=4, grid=(1.0,), seed=0) is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.floats(0.05, 0.95), st.integers(0, 99))
def test_held_out_parts_hold_some_of_every_class_and_leave_some(labels, share, seed):
    labels = np.array(labels)
    part = logistic.stratified_part(labels, share, seed)
    for label in np.unique(labels):
        members = labels == label
        held = int(part[members].sum())
        assert held <= members.sum() - 1
        assert held >= min(1, members.sum() - 1)
        assert abs(held - share * members.sum()) <= 1.5
    np.testing.assert_array_equal(part, logistic.stratified_part(labels, share, seed))
