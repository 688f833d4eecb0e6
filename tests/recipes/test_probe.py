"""Frozen encoders judged as a person does it: rows, errors, and nothing of the encoder touched."""

import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from maekit import cli
from maekit.config import ClassifierConfig, DecoderConfig, MaskConfig, ModelConfig, ProbeConfig, TargetConfig
from maekit.data.sources import open_source
from maekit.data.sources.subset import SubsetSource, few_per_class
from maekit.engine import logistic
from maekit.errors import DataError, ModelError
from maekit.inference.features import Features
from maekit.models import classifier
from maekit.models.encoder import ImageEncoder
from maekit.models.mae import MaskedAutoencoder
from maekit.recipes import probe, probe_training
from maekit.weights import native

TINY = ModelConfig(
    encoder="vit_tiny_patch16_224", image_size=8, patch_size=4, channels=1, width=24, depth=2, heads=2,
    decoder=DecoderConfig(kind="self", width=16, depth=1, heads=2),
)  # fmt: skip
HALF = {"mean": (0.5,), "std": (0.5,)}
FEW = ProbeConfig(kinds=("knn", "linear"), crop_share=1.0, workers=0)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return ImageEncoder(TINY, **HALF).eval()


@pytest.fixture(scope="module")
def digits():
    """200 and 100 digits, twenty and ten of each."""
    return few_per_class(open_source("digits:train"), 20, 0), few_per_class(open_source("digits:test"), 10, 0)


def config(**changes):
    return ProbeConfig(**{"crop_share": 1.0, "workers": 0, **changes})


def random_features(images, *, seed):
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % 4
    vectors = torch.randn(images, 12, generator=draw)
    vectors[torch.arange(images), labels] += 1.5
    return Features(vectors * torch.linspace(0.1, 9, 12) + 3, labels, torch.arange(images))


def test_features_are_judged_as_scikit_learn_does():
    train, val = random_features(300, seed=0), random_features(200, seed=1)
    found = probe.probe_features(train, val, classes=4)
    neighbours = KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07))
    neighbours.fit(train.vectors.numpy(), train.labels.numpy())
    assert found["knn"]["k"] == 20
    assert found["knn"]["top1"] == pytest.approx(neighbours.score(val.vectors.numpy(), val.labels.numpy()))
    assert list(found["knn"]["by_k"]) == [10, 20, 100, 200]

    scale = logistic.Standardisation.of(train.vectors)
    regression = LogisticRegression(C=1 / (300 * found["linear"]["weight_decay"]), tol=1e-8, max_iter=5000)
    regression.fit(scale(train.vectors).numpy(), train.labels.numpy())
    expected = regression.score(scale(val.vectors).numpy(), val.labels.numpy())
    assert found["linear"]["top1"] == pytest.approx(expected, abs=1 / 200)


def test_validation_images_choose_nothing():
    train, val = random_features(120, seed=0), random_features(60, seed=1)
    wrong = Features(val.vectors, val.labels.flip(0), val.indices)
    chosen = [probe.probe_features(train, held, classes=4)["linear"]["weight_decay"] for held in (val, wrong)]
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize("kind", ["masked autoencoder", "classifier in training"])
def test_every_kind_judges_and_touches_nothing(kind, digits):
    torch.manual_seed(1)
    if kind == "masked autoencoder":
        model = MaskedAutoencoder(TINY, TargetConfig(kind="raw"), MaskConfig(), **HALF).eval()
        model.decoder.train()
    else:
        settings = ClassifierConfig(pooling="mean", drop_path=0.5)
        model = classifier.build(TINY, settings, tuple("0123456789"), seed=0, **HALF).train()
        model.encoder.blocks[0].requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [(m.training, [p.requires_grad for p in m.parameters(recurse=False)]) for m in model.modules()]

    for linear in ("fast", "paper"):
        wanted = config(linear=linear, epochs=2, batch_size=64)
        answer = probe.judge(model, *digits, wanted)
        again = probe.judge(model, *digits, wanted)
        assert answer == again
        json.dumps(answer)
        assert {answer[name]["features"] for name in ("knn", "attentive")} == {"pooled", "patches"}
        assert answer["linear"]["features"] == ("class" if linear == "paper" else "pooled")
        assert all(0 <= row["top1"] <= 1 for row in answer["rows"])

    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert flags == [(m.training, [p.requires_grad for p in m.parameters(recurse=False)]) for m in model.modules()]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_pixels_of_digits_are_told_apart_by_an_untrained_encoder(encoder, digits):
    answer = probe.judge(encoder, *digits, FEW)
    assert answer["knn"]["top1"] > 0.5
    assert answer["linear"]["top1"] > 0.6
    assert answer["train_images"] == 200
    assert answer["val_images"] == 100


def test_the_first_row_is_reported_and_not_the_best(encoder, digits):
    answer = probe.judge(encoder, *digits, config(kinds=("knn", "linear"), blocks=(2, 1), neighbours=(1, 20)))
    assert [(row["kind"], row["blocks"], row.get("k")) for row in answer["rows"]] == [
        ("knn", 2, 1), ("knn", 2, 20), ("knn", 1, 1), ("knn", 1, 20), ("linear", 2, None), ("linear", 1, None)
    ]  # fmt: skip
    assert answer["knn"]["k"] == 20
    assert answer["knn"]["blocks"] == 2
    assert answer["knn"]["by_k"] == {1: answer["rows"][0]["top1"], 20: answer["rows"][1]["top1"]}


def test_sweep_takes_what_the_encoder_has(encoder, digits):
    answer = probe.judge(encoder, *digits, config(kinds=("linear",), sweep=True))
    pairs = [(row["features"], row["blocks"]) for row in answer["rows"]]
    assert pairs == [("pooled", 1), ("class", 1), ("pooled", 2), ("class", 2)]  # it has two blocks, so no last four


def test_a_head_of_the_paper_is_the_same_alone_and_among_others(encoder, digits):
    trial = probe_training.Trial(encoder, *digits, config(epochs=3, batch_size=50, base_lr=5.0), probe.World())
    pooled, classes = probe_training.Choice("pooled", 1), probe_training.Choice("class", 1)
    both = probe_training.train_linear(trial, [classes, pooled])
    assert probe_training.train_linear(trial, [pooled])[pooled] == both[pooled]


def test_the_attentive_probe_is_the_same_with_tokens_kept_and_not_kept(encoder, digits):
    shown = {"kinds": ("attentive",), "epochs": 3, "batch_size": 40}
    kept = probe.judge(encoder, *digits, config(**shown))
    anew = probe.judge(encoder, *digits, config(**shown, token_memory=0.0))
    assert kept["attentive"]["top1"] == pytest.approx(anew["attentive"]["top1"], abs=1 / 100)


def test_probes_that_attend_learn_and_do_not_change_each_other(encoder, digits):
    shown = {"epochs": 60, "batch_size": 100, "queries": 16}
    both = probe.judge(encoder, *digits, config(kinds=("efficient", "attentive"), **shown))
    assert both["attentive"]["top1"] > 0.35
    assert both["efficient"]["top1"] > 0.35
    assert both["efficient"]["queries"] == 12  # of a width of 24
    alone = probe.judge(encoder, *digits, config(kinds=("efficient",), **shown))
    assert alone["efficient"] == both["efficient"]


def test_few_images_a_class_come_down_to_one(encoder, digits):
    train, val = digits
    answer = probe.judge(encoder, train, val, config(kinds=("knn", "linear"), per_class=1))
    assert answer["train_images"] == 10
    assert answer["knn"]["by_k"].keys() == {10}
    assert answer["linear"]["weight_decay"] == 1e-2
    assert answer["linear"]["top1"] > 0.15


def without_classes(source):
    bare = SubsetSource(source, np.arange(len(source)))
    bare.classes = None
    return bare


@pytest.mark.parametrize(
    ("train", "val", "changes", "words"),
    [
        (without_classes, None, {}, "has no labels"),
        (None, without_classes, {}, "has no labels"),
        (None, lambda source: SubsetSource(source, np.arange(0)), {}, "holds no image"),
        (None, None, {"per_class": 21}, "class 0 has 20 images, 21 per class were asked for"),
        (None, None, {"neighbours": (20, 201)}, "--neighbours 201: there are 200 training images"),
    ],
)
def test_images_that_cannot_be_compared_are_refused(encoder, digits, train, val, changes, words):
    sources = [change(source) if change else source for change, source in zip((train, val), digits, strict=True)]
    with pytest.raises(DataError, match=words) as caught:
        probe.judge(encoder, *sources, config(**changes))
    assert "\n" not in str(caught.value)


def test_features_the_encoder_has_not_are_refused(digits):
    torch.manual_seed(0)
    model = ImageEncoder(ModelConfig(**{**vars(TINY), "class_token": False}), **HALF)
    with pytest.raises(ModelError, match="no class token"):
        probe.judge(model, *digits, config(features=("class",)))
    with pytest.raises(ModelError, match="last 4 blocks"):
        probe.judge(model, *digits, config(blocks=(4,)))
    answer = probe.judge(model, *digits, config(kinds=("linear",), linear="paper", epochs=1))
    assert answer["linear"]["features"] == "pooled"


@pytest.fixture(scope="module")
def weights(encoder, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "encoder.safetensors"
    native.save(encoder, path)
    return path


def test_the_command_prints_a_table_and_answers_in_json(capsys, weights):
    words = ["probe", "--weights", weights, "--data", "digits:train", "--val", "digits:test"]
    words += ["--kinds", "knn", "linear", "--crop-share", 1, "--per-class", 10, "--workers", 0, "--device", "cpu"]
    assert cli.main([*map(str, words), "--json"]) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out.splitlines()[-1])
    assert {"knn", "linear", "rows"} <= answer.keys()
    assert 0.3 < answer["knn"]["top1"] < 1
    assert "weight decay" in captured.err
    assert "k 20" in captured.err


def test_images_are_cropped_as_the_weights_were_validated_unless_told_otherwise(encoder):
    train, val = open_source("digits:train"), open_source("digits:test")
    few = {"kinds": ("knn",), "per_class": 10, "workers": 0}

    def top1(**more):
        return probe.judge(encoder, train, val, ProbeConfig(**few, **more))["rows"]

    assert top1() == top1(crop_share=0.875)
    encoder.crop_share = 1.0
    try:
        assert top1() == top1(crop_share=1.0) != top1(crop_share=0.875)
    finally:
        encoder.crop_share = None


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        (["--kinds", "knnn"], 2, "no such choice 'knnn'"),
        (["--kinds"], 2, "--kinds: takes at least 1 value, got none"),
        (["--neighbours", "0"], 2, "neighbours"),
        (["--blocks"], 2, "--blocks: takes at least 1 value, got none"),
        (["--blokcs", "2"], 2, "did you mean --blocks?"),
        (["--per-class", "500"], 1, "500 per class were asked for"),
        (["--data", "digits:tran"], 1, "no such part of the digits"),
        (["--val", "PHOTOS"], 1, "different classes"),
    ],
)
def test_mistakes_are_one_line(capsys, weights, photos, changes, code, words):
    given = {"--weights": str(weights), "--data": "digits:train", "--val": "digits:test", "--device": "cpu"}
    changes = [str(photos) if word == "PHOTOS" else word for word in changes]
    line = [word for name, value in given.items() if name not in changes for word in (name, value)]
    assert cli.main(["probe", *line, *changes]) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert words in err


def test_one_class_is_refused(capsys, weights, photos, tmp_path):
    (tmp_path / "one.txt").write_text("".join(f"{path}, 0\n" for path in sorted(photos.rglob("*.jpg"))))
    words = ["probe", "--weights", weights, "--data", tmp_path / "one.txt", "--val", tmp_path / "one.txt"]
    assert cli.main([*map(str, words), "--device", "cpu"]) == 1
    assert "has one class (0)" in capsys.readouterr().err


def test_images_without_a_label_are_refused(capsys, weights, photos, tmp_path):
    paths = sorted(photos.rglob("*.jpg"))
    lines = [f"{path}, {number % 2}" for number, path in enumerate(paths)]
    (tmp_path / "all.txt").write_text("\n".join(lines))
    (tmp_path / "most.txt").write_text("\n".join([*lines[1:], str(paths[0])]))
    words = ["probe", "--weights", weights, "--data", tmp_path / "most.txt", "--val", tmp_path / "all.txt"]
    assert cli.main([*map(str, words), "--device", "cpu"]) == 1
    assert f"1 of {len(paths)} images have no label" in capsys.readouterr().err
