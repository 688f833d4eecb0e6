"""`maekit embed`: the file holds the features of every readable image, or is not there."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from answers import answer, complaint
from classifiers import batches
from PIL import Image

import maekit
from maekit.config import ClassifierConfig, MaskConfig, TargetConfig
from maekit.config.verbs import EmbedOptions
from maekit.data.sources import open_source
from maekit.errors import ModelError
from maekit.inference import embed
from maekit.inference.features import extract
from maekit.models import classifier
from maekit.models.classifier import Classifier
from maekit.models.encoder import ImageEncoder
from maekit.models.mae import MaskedAutoencoder
from maekit.weights import native
from maekit.weights.load import load
from tiny import model_config


def read(path: Path) -> tuple[list[str], list[int], np.ndarray]:
    """Paths, labels (-1: none) and vectors of either format."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["path"].tolist(), arrays["label"].tolist(), arrays["vector"]
    table = pq.read_table(path)
    labels = [-1 if label is None else label for label in table["label"].to_pylist()]
    return table["path"].to_pylist(), labels, np.array(table["vector"].to_pylist(), np.float32)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
@pytest.mark.parametrize("tokens", ["pooled", "class", "patches"])
def test_files_hold_path_label_and_vector_of_every_image(
    capsys, digits_weights: Path, digits_model: Classifier, tmp_path: Path, suffix: str, tokens
):
    out = tmp_path / f"features{suffix}"
    words = ("embed", "--weights", digits_weights, "--data", "digits:test", "--out", out, "--tokens", tokens)
    said = answer(capsys, *words)
    assert said == {"out": str(out), "images": 360, "width": 16, "skipped": []}
    paths, labels, vectors = read(out)
    source = open_source("digits:test")
    expected = extract(digits_model, batches("digits:test", digits_model), tokens)
    assert paths == [source.path(index) for index in range(360)]
    assert labels == expected.labels.tolist()
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, expected.vectors.numpy())


def test_class_names_travel_with_the_features(capsys, digits_weights: Path, tmp_path: Path):
    names = [str(digit) for digit in range(10)]
    for out in (tmp_path / "f.npz", tmp_path / "f.parquet"):
        answer(capsys, "embed", "--weights", digits_weights, "--data", "digits:test", "--out", out)
    with np.load(tmp_path / "f.npz") as arrays:
        assert arrays["classes"].tolist() == names
    assert json.loads(pq.read_schema(tmp_path / "f.parquet").metadata[b"classes"]) == names


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_unlabelled_and_unreadable_images(
    capsys, broken_photos: Path, photos_weights: Path, tmp_path: Path, suffix: str
):
    out = tmp_path / f"features{suffix}"
    said = answer(capsys, "embed", "--weights", photos_weights, "--data", broken_photos / "rough", "--out", out)
    paths, labels, vectors = read(out)
    assert [Path(path).name for path in paths] == sorted(
        file.name for file in (broken_photos / "rough").iterdir() if file.name != "broken.png"
    )
    assert labels == [-1] * 6
    assert vectors.shape == (6, 32)
    assert [Path(entry["path"]).name for entry in said["skipped"]] == ["broken.png"]


def test_row_groups_are_written_as_they_fill(
    capsys, digits_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = ("embed", "--weights", digits_weights, "--data", "digits:test", "--out")
    answer(capsys, *words, tmp_path / "one.parquet")
    monkeypatch.setattr(embed, "_ROW_GROUP_BYTES", 8_000)
    answer(capsys, *words, tmp_path / "several.parquet")
    assert pq.ParquetFile(tmp_path / "one.parquet").num_row_groups == 1
    assert pq.ParquetFile(tmp_path / "several.parquet").num_row_groups == 3
    assert pq.read_table(tmp_path / "one.parquet").equals(pq.read_table(tmp_path / "several.parquet"))


@pytest.mark.parametrize("kind", ["mae", "encoder"])
def test_any_encoder_can_embed(capsys, kind: str, request: pytest.FixtureRequest, tmp_path: Path):
    weights = request.getfixturevalue(f"{kind}_weights")
    out = tmp_path / "features.npz"
    answer(capsys, "embed", "--weights", weights, "--data", "digits:test", "--out", out, "--blocks", 2)
    model = load(weights)
    expected = extract(model, batches("digits:test", model), blocks=2).vectors
    assert np.array_equal(read(out)[2], expected.numpy())
    assert not torch.equal(expected, extract(model, batches("digits:test", model)).vectors)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_a_failure_leaves_what_was_there(capsys, encoder_weights: Path, tmp_path: Path, suffix: str):
    out = tmp_path / f"features{suffix}"
    out.write_text("older")
    words = ("embed", "--weights", encoder_weights, "--data", "digits:test", "--out", out, "--tokens", "class")
    assert "no class token" in complaint(capsys, *words)
    assert [file.name for file in tmp_path.iterdir()] == [out.name]
    assert out.read_text() == "older"


@pytest.mark.parametrize(
    ("out", "code", "expected"),
    [
        ("features.csv", 2, "are written as .npz or .parquet"),
        ("features", 2, "not as no suffix"),
        ("nowhere/features.npz", 1, "there is no folder nowhere"),
    ],
)
def test_a_place_that_cannot_be_written_is_found_first(capsys, out: str, code: int, expected: str):
    assert expected in complaint(capsys, "embed", "--weights", "w", "--data", "nothing", "--out", out, code=code)


@pytest.mark.parametrize("kind", ["masked autoencoder", "mean classifier", "class classifier", "encoder"])
def test_features_in_python_are_the_vectors_of_the_file(kind, photos, tmp_path):
    """At the model's own size, where embed's crop leaves pixels as they are; drop path on, as while training."""
    half = {"mean": (0.3, 0.5, 0.7), "std": (0.2, 0.3, 0.4)}
    config = model_config(image_size=16)
    torch.manual_seed(0)
    if kind == "masked autoencoder":
        model = MaskedAutoencoder(config, TargetConfig(kind="raw"), MaskConfig(), **half)
    elif kind == "encoder":
        model = ImageEncoder(config, **half)
    else:
        settings = ClassifierConfig(pooling=kind.split()[0], drop_path=0.5)
        model = classifier.build(config, settings, ("rough", "smooth"), seed=0, **half)
        torch.nn.init.normal_(model.norm.weight) if kind.startswith("mean") else None
    native.save(model, tmp_path / "w.safetensors")
    (tmp_path / "small").mkdir()
    pictures = []
    for number, file in enumerate(sorted(photos.rglob("*.png"))):
        small = Image.open(file).convert("RGB").resize((16, 16))
        small.save(tmp_path / "small" / f"{number}.png")
        pictures.append(torch.from_numpy(np.array(small)).permute(2, 0, 1))
    options = EmbedOptions(
        weights=str(tmp_path / "w.safetensors"), data=str(tmp_path / "small"), out=str(tmp_path / "f.npz"),
        crop_share=1.0, device="cpu",
    )  # fmt: skip
    embed.embed(options)
    written = torch.from_numpy(np.load(tmp_path / "f.npz")["vector"])
    images = torch.stack(pictures).float() / 255
    loaded = maekit.load(tmp_path / "w.safetensors")
    for found in (loaded.features(images), loaded.train().features(images), model.features(torch.stack(pictures))):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, written, rtol=1e-5, atol=1e-6)
    assert loaded.training
    with pytest.raises(ModelError, match=r"the model takes \[N, 3, 16, 16\]"):
        loaded.features(images[:, :1])


def test_a_picture_shows_patch_features_as_colours(capsys, digits_weights: Path, tmp_path: Path):
    out = tmp_path / "features.npz"
    words = ("embed", "--weights", digits_weights, "--data", "digits:test", "--out", out, "--picture")
    answer(capsys, *words, tmp_path / "colours.png")
    with Image.open(tmp_path / "colours.png") as drawn:
        assert drawn.height > 6 * 160 > drawn.width
        assert len(np.unique(np.asarray(drawn.convert("RGB")).reshape(-1, 3), axis=0)) > 100  # digits alone are grey
    assert "written as .png or .jpg" in complaint(capsys, *words, tmp_path / "colours.txt", code=2)
