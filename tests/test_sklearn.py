"""The scikit-learn transformer: its features, what it takes and refuses, scikit-learn's own checks of estimators."""

import pickle
import warnings
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

import maekit
import maekit.sklearn
import tiny
from maekit.config import MaskConfig, TargetConfig
from maekit.config.verbs import EmbedOptions
from maekit.errors import DataError, MaekitError, WeightsError
from maekit.inference.embed import embed
from maekit.models.encoder import ImageEncoder
from maekit.models.mae import MaskedAutoencoder
from maekit.sklearn import Embedder
from maekit.weights import native


def saved(path, channels=3, **changes):
    """A tiny masked autoencoder's file, 8 px high and 12 wide."""
    config = tiny.model_config(image_size=(8, 12), channels=channels, **changes)
    half = (0.5,) * channels
    native.save(MaskedAutoencoder(config, TargetConfig(pixels="raw"), MaskConfig(), mean=half, std=half), path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("colour") / "w.safetensors")


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    """Of 12 x 8 pixels in one channel."""
    return saved(tmp_path_factory.mktemp("grey") / "w.safetensors", channels=1)


@pytest.fixture(scope="module")
def pixels():
    """[N, H, W, C] of the weights' own size."""
    return np.random.default_rng(0).integers(0, 256, (5, 8, 12, 3), dtype=np.uint8)


def embedder(weights, **options):
    return Embedder(weights, device="cpu", **options)


def test_features_are_those_of_embed(weights, photos, tmp_path):
    out = tmp_path / "features.npz"
    embed(EmbedOptions(weights=str(weights), data=str(photos), out=str(out), device="cpu"))
    written = np.load(out)
    features = embedder(weights, batch_size=5).fit_transform(written["path"].tolist())
    assert features.dtype == np.float32
    assert np.array_equal(features, written["vector"])


def test_all_forms_of_the_same_images_have_the_same_features(weights, grey, pixels, tmp_path):
    features = embedder(weights, crop_share=1).fit_transform(pixels)
    alike = {
        "channels first": pixels.transpose(0, 3, 1, 2),
        "rows": pixels.reshape(5, -1),
        "16 bits": pixels.astype(np.uint16) * 257,
        "floating point": pixels / 255,
        "a list": list(pixels),
    }
    for form, X in alike.items():
        assert np.allclose(embedder(weights, crop_share=1).fit_transform(X), features, atol=1e-5), form
    stretched = embedder(weights, crop_share=1, value_range=(0, 255)).fit_transform(pixels.astype(int))
    assert np.allclose(stretched, features, atol=1e-5)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    paths = sorted(tmp_path.glob("*.png"))
    for X in (paths, np.array([[str(path)] for path in paths])):
        assert np.array_equal(embedder(weights, crop_share=1).fit_transform(X), features)
    plain = np.repeat(pixels[..., :1], 3, axis=3)
    for X in (pixels[..., 0], pixels[..., :1]):
        assert np.array_equal(embedder(weights).fit_transform(X), embedder(weights).fit_transform(plain))
    assert embedder(grey).fit_transform(pixels[..., 0]).shape == (5, 32)
    assert not np.allclose(embedder(weights).fit_transform(pixels), features)  # cropped, as W was validated


def test_tokens_and_blocks_are_heeded_and_features_have_names(weights, pixels):
    found = [embedder(weights, **options).fit_transform(pixels) for options in ({}, {"tokens": "class"}, {"blocks": 2})]
    assert not any(np.allclose(one, other) for one, other in pairwise(found))
    names = embedder(weights).fit(pixels).get_feature_names_out()
    assert (names[0], names[-1], len(names)) == ("embedder0", "embedder31", 32)


def test_a_search_reads_the_weights_once(grey, monkeypatch):
    reads = []
    load = maekit.sklearn.load
    monkeypatch.setattr(maekit.sklearn, "load", lambda *given, **named: (reads.append(given), load(*given, **named))[1])
    maekit.sklearn._loaded.cache_clear()
    X, y = load_digits(return_X_y=True)
    X, y = X[:60].reshape(-1, 8, 8), y[:60] % 2
    pipeline = make_pipeline(embedder(grey, value_range=(0, 16)), LogisticRegression())
    search = GridSearchCV(pipeline, {"embedder__blocks": [1, 2], "logisticregression__C": [0.1, 1]}, cv=2)
    assert search.fit(X, y).predict(X).shape == (60,)
    assert len(reads) == 1
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    assert np.array_equal(again.predict(X), search.predict(X))
    assert len(pickle.dumps(embedder(grey))) < 1000


def test_parameters_are_read_when_used(weights, grey, pixels):
    made = clone(embedder(weights).fit(pixels)).set_params(weights=grey)
    assert made.get_params()["weights"] == grey
    assert made.fit_transform(pixels[..., 0]).shape == (5, 32)
    before = made.transform(pixels[..., 0])
    saved(grey, channels=1)  # trained on meanwhile: other numbers in the same file
    assert not np.allclose(made.transform(pixels[..., 0]), before)


@pytest.mark.parametrize(
    ("X", "options", "said"),
    [
        (np.zeros((2, 3, 12, 3), np.uint8), {}, r"shape \[2, 3, 12, 3\].*either may be the channels"),
        (np.zeros((2, 4, 8, 12), np.uint8), {}, r"shape \[2, 4, 8, 12\].*weights for 3 channels.*other weights"),
        (np.zeros((2, 100), np.uint8), {}, r"X has 100 features.*expecting 288.*rows of images of 8x12x3"),
        (np.full((2, 8, 12), 16.0), {}, r"values from 16 to 16; .*black and what is white: value_range=\(LOW, HIGH\)"),
        (np.full((2, 8, 12), np.nan), {}, "contains NaN"),
        (np.zeros((2, 8, 12), np.uint8), {"tokens": "patches"}, "tokens is pooled or class"),
        (np.zeros((2, 8, 12), np.uint8), {"blocks": 0}, "blocks and batch_size are 1 or more"),
        (["nowhere.png"], {}, "nowhere.png: no such file"),
    ],
)
def test_what_cannot_be_meant_is_a_value_error_in_one_line(weights, X, options, said):
    with pytest.raises(ValueError, match=said) as caught:
        embedder(weights, **options).fit(X).transform(X)
    if "NaN" not in said:  # scikit-learn's own words
        assert isinstance(caught.value, MaekitError)
        assert "\n" not in str(caught.value)


def test_weights_that_are_not_there(pixels):
    with pytest.raises(WeightsError, match="nowhere: no such file or folder"):
        Embedder("nowhere").fit(pixels)
    assert issubclass(maekit.sklearn.InputError, DataError)


def test_scikit_learns_checks_of_estimators(tmp_path):
    """Rows have as many columns as the weights' images have pixels, so each check gets weights for what it brings."""
    passed, others = set(), {}
    for width in (1, 2, 3, 4, 5, 10):
        config = tiny.model_config(image_size=(1, width), patch_size=1, channels=1, width=8, depth=1)
        native.save(ImageEncoder(config, mean=(0.5,), std=(0.5,)), tmp_path / f"{width}.safetensors")
        checked = embedder(tmp_path / f"{width}.safetensors", value_range=(-10, 10), crop_share=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results = check_estimator(checked, on_fail=None, on_skip=None)
        passed |= {one["check_name"] for one in results if one["status"] == "passed"}
        others |= {one["check_name"]: one["exception"] for one in results if one["status"] != "passed"}
    assert len(passed) > 35
    left = {name: str(why) for name, why in others.items() if name not in passed}
    assert set(left) <= {"check_array_api_input"}, left  # which needs SCIPY_ARRAY_API to be set
