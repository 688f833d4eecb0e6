"""Weights in one layout written in another: round trips, parts, and what a layout has no place for."""

from pathlib import Path

import pytest
import torch

import tiny
from maekit.config import MaskConfig, TargetConfig
from maekit.config.verbs import ConvertOptions, WeightsOptions
from maekit.errors import StorageError, UsageError, WeightsError
from maekit.inference.convert import convert
from maekit.models.encoder import ImageEncoder
from maekit.weights import native
from maekit.weights.blueprint import Blueprint
from maekit.weights.load import load

PARITY = Path(__file__).parents[1] / "fixtures" / "parity"
GIVEN = WeightsOptions(heads=3, decoder_heads=4, image_size=32)

SUFFIXES = {"facebook": ".pth", "torch-export": ".pt2"}
ROUND_TRIPS = [
    ("facebook_mae_full", "maekit", "w.safetensors"),
    ("facebook_mae_full", "facebook", "w.pth"),
    ("facebook_mae_full", "huggingface", "folder"),
    ("facebook_mae_encoder_only", "facebook", "w.pth"),
    ("facebook_mae_encoder_only", "huggingface", "folder"),
    ("facebook_mae_encoder_only", "timm", "w.safetensors"),
    ("facebook_finetuned_pooled", "facebook", "w.pth"),
    ("facebook_finetuned_pooled", "timm", "w.safetensors"),
    ("facebook_finetuned_cls_token", "facebook", "w.pth"),
    ("facebook_finetuned_cls_token", "huggingface", "folder"),
    ("facebook_finetuned_cls_token", "timm", "folder"),
    ("flyegle_mae", "maekit", "folder"),
    ("flyegle_finetuned", "facebook", "w.pth"),
    ("flyegle_finetuned", "huggingface", "folder"),
]


def converted(name, to, out, **options):
    weights = str(PARITY / f"{name}.pth")
    return convert(ConvertOptions(weights=weights, to=to, out=str(out), **vars(GIVEN), **options))


@pytest.mark.parametrize(("name", "to", "out"), ROUND_TRIPS)
def test_round_trips_lose_nothing(name, to, out, tmp_path):
    converted(name, to, tmp_path / out)
    before, after = load(PARITY / f"{name}.pth", GIVEN), load(tmp_path / out)
    assert native.metadata(after) == native.metadata(before)
    assert all(torch.equal(value, after.state_dict()[key]) for key, value in before.state_dict().items())


@pytest.mark.parametrize("name", ["facebook_mae_full", "facebook_finetuned_pooled", "facebook_finetuned_cls_token"])
def test_facebook_files_come_back_as_they_were(name, tmp_path):
    converted(name, "facebook", tmp_path / "w.pth")
    before, after = (
        torch.load(path, weights_only=True)["model"] for path in (PARITY / f"{name}.pth", tmp_path / "w.pth")
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())


def test_encoder_of_a_masked_autoencoder(tmp_path):
    answer = converted("facebook_mae_full", "maekit", tmp_path / "w.safetensors", part="encoder")
    assert answer.as_dict() == {"out": str(tmp_path / "w.safetensors"), "to": "maekit", "part": "encoder"}
    assert type(load(tmp_path / "w.safetensors")) is ImageEncoder


@pytest.mark.parametrize(
    ("name", "to", "part", "reason"),
    [
        ("flyegle_mae", "facebook", "auto", "for which that layout has no place; .*--part encoder"),
        ("facebook_mae_full", "timm", "reconstructor", "no place for a decoder; take --part encoder"),
        ("flyegle_mae", "huggingface", "auto", "has no place"),
        ("facebook_finetuned_pooled", "huggingface", "auto", "reads the class token"),
        ("facebook_finetuned_pooled", "timm", "encoder", "norms after the mean"),
        ("facebook_mae_full", "maekit", "classifier", "holds no classifier but reconstructor alone"),
    ],
)
def test_what_a_layout_has_no_place_for(name, to, part, reason, tmp_path):
    out = tmp_path / f"out{SUFFIXES.get(to, '')}"
    with pytest.raises(WeightsError, match=reason):
        converted(name, to, out, part=part)
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "to", "reason"),
    [
        ({"class_token": False}, "facebook", "have a class token"),
        ({"register_tokens": 2}, "facebook", "encoder.reg_token"),
        ({"decoder": tiny.decoder_config(kind="cross")}, "huggingface", "decoder.blocks.0.q.weight"),
        ({"image_size": (16, 24)}, "huggingface", "square"),
        ({"image_size": 16, "norm_eps": 1e-5}, "huggingface", "one norm_eps"),
    ],
)
def test_what_only_maekit_has(changes, to, reason, tmp_path):
    parts = (TargetConfig(kind="raw"), MaskConfig())
    model = native.build(Blueprint("masked_autoencoder", tiny.model_config(**changes), (0.5,) * 3, (0.5,) * 3, *parts))
    native.save(model, tmp_path / "w.safetensors")
    out = tmp_path / f"out{SUFFIXES.get(to, '')}"
    with pytest.raises(WeightsError, match=reason):
        convert(ConvertOptions(weights=str(tmp_path / "w.safetensors"), to=to, out=str(out)))
    assert not out.exists()


@pytest.mark.parametrize("to", ["maekit", "facebook", "torch-export"])
def test_a_place_that_cannot_be_written(to, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        converted("facebook_mae_encoder_only", to, tmp_path / "file" / f"w{SUFFIXES.get(to, '')}")


@pytest.mark.parametrize(
    ("to", "name", "reason"),
    [
        ("facebook", "w.safetensors", r"writes one \.pth file; name it \.pth"),
        ("torch-export", "w", r"name it \.pt2"),
        ("onnx", "w.pth", r"name it \.onnx"),
        ("huggingface", "w.safetensors", r"writes a folder; leave \.safetensors out"),
        ("timm", "w.pth", r"a folder or one \.safetensors file; leave \.pth out"),
    ],
)
def test_a_name_that_belies_its_content(to, name, reason, tmp_path):
    with pytest.raises(UsageError, match=reason):
        converted("facebook_mae_full", to, tmp_path / name)


def test_what_was_written_is_said(tmp_path):
    answer = converted("facebook_mae_full", "timm", tmp_path / "vit")
    assert answer.part == "encoder"
    assert str(answer) == f"{tmp_path / 'vit'}: encoder in timm layout"


def test_what_timm_does_not_keep_is_said(tmp_path, caplog):
    converted("flyegle_finetuned", "timm", tmp_path / "w.safetensors")
    assert "norm_eps: this model adds 1e-05, timm's code 1e-06" in caplog.text


def test_pushing_names_a_repository(tmp_path):
    with pytest.raises(UsageError, match="hf:OWNER/NAME"):
        converted("facebook_mae_full", "maekit", tmp_path / "w.safetensors", push="someone/birds")
    assert not (tmp_path / "w.safetensors").exists()


def test_push(tmp_path, monkeypatch):
    calls = []

    class Hub:
        def create_repo(self, name, *, exist_ok):
            calls.append(("create", name, exist_ok))

        def upload_file(self, *, repo_id, path_or_fileobj, path_in_repo):
            assert path_or_fileobj.is_file()
            calls.append((repo_id, path_in_repo))
            return "where it is"

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    answer = converted("facebook_mae_full", "maekit", tmp_path / "model.safetensors", push="hf:someone/birds")
    assert calls == [("create", "someone/birds", True), ("someone/birds", "model.safetensors")]
    assert answer.pushed == "where it is"
