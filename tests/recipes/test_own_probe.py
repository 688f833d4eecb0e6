"""A probe of the user's own stands beside maekit's."""

import json

import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid

import maekit
from maekit.models.encoder import ImageEncoder
from maekit.weights import native
from tiny import model_config


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "model.safetensors"
    config = model_config(image_size=8, patch_size=2, channels=1)
    native.save(ImageEncoder(config, mean=(0.5,), std=(0.5,)), path)
    return path


def test_it_is_judged_on_the_same_features(weights, maekit_here, tmp_path):
    words = ("--data", "digits:train", "--val", "digits:test", "--device", "cpu", "--json")
    done = maekit_here("probe", "--weights", weights, *words, "--probe", "knn", "own_parts:nearest_mean,power=2.0")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    known, judged = (
        np.load(maekit.embed(weights, f"digits:{part}", out=tmp_path / f"{part}.npz", device="cpu").out)
        for part in ("train", "test")
    )
    expected = NearestCentroid().fit(known["vector"], known["label"]).score(judged["vector"], judged["label"])
    assert said["own_parts:nearest_mean,power=2.0"]["top1"] == pytest.approx(expected, abs=0.006)
    assert [row["kind"] for row in said["rows"]][-1] == "own_parts:nearest_mean,power=2.0"


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        (("own_parts:one_guess",), "probe own_parts:one_guess: gives [1]; it has to be one label for each of 360"),
        (("own_parts:huber",), "probe own_parts:huber: fails (TypeError"),
        (("own_parts:nothing",), "probe own_parts:nothing: own_parts has no nothing"),
        (("atentive",), "--kinds: no such choice 'atentive', there are 'knn', 'linear', 'attentive', 'efficient', or "
                        "module:object"),
    ],
)  # fmt: skip
def test_what_will_not_do_is_said_in_a_line(kinds, words, weights, maekit_here):
    data = ("--data", "digits:train", "--val", "digits:test", "--device", "cpu")
    done = maekit_here("probe", "--weights", weights, *data, "--kinds", *kinds)
    assert done.returncode == 2
    assert words in done.stderr
