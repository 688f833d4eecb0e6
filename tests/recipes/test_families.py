"""Swin and Hiera through the same commands as ViT."""

import json

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from maekit import storage
from maekit.engine import metrics

SHAPES = {
    "swin-tiny": ("--image-size", "64", "--model.width", "24", "--model.decoder.width", "32"),
    "swin-tiny-simmim": ("--image-size", "64", "--model.width", "24", "--model.window", "16"),
    "hiera-tiny": ("--image-size", "64", "--model.width", "16", "--model.decoder.width", "32"),
}
SUPERVISED = {"swin-tiny": "swin-tiny", "swin-tiny-simmim": "swin-tiny", "hiera-tiny": "hiera-tiny"}
STEPS = (
    "--steps", "4", "--batch-size", "4", "--lr", "1e-3", "--workers", "0", "--device", "cpu", "--precision", "fp32",
    "--run.no-tensorboard",
)  # fmt: skip


@pytest.fixture(scope="module", params=SHAPES)
def pretrained(request, maekit_here, photos, tmp_path_factory):
    """(preset, run folder)."""
    folder = tmp_path_factory.mktemp(request.param) / "run"
    done = maekit_here(
        "pretrain", request.param, *SHAPES[request.param], *STEPS, "--checkpoint-every", "2",
        "--data", photos, "--out", folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return request.param, folder


def answer(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_an_interrupted_run_goes_on_bit_for_bit(pretrained, maekit_here, photos, tmp_path):
    preset, folder = pretrained
    words = ("pretrain", preset, *SHAPES[preset], *STEPS, "--checkpoint-every", "2", "--data", photos)
    assert maekit_here(*words, "--out", tmp_path / "run").returncode == 0
    (tmp_path / "run" / "checkpoints" / "step-4" / "manifest.json").unlink()
    done = maekit_here(*words, "--out", tmp_path / "run", "--resume")
    assert "going on from step 2" in done.stderr
    losses = [[r["loss"] for r in metrics.read(run / "metrics.jsonl")] for run in (folder, tmp_path / "run")]
    assert losses[0] == losses[1]
    tensors = [storage.read_tensors(run / "model.safetensors") for run in (folder, tmp_path / "run")]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


def test_it_paints_and_says_what_it_is(pretrained, maekit_here, photos, tmp_path):
    preset, folder = pretrained
    said = answer(maekit_here("inspect", folder, "--json"))
    assert said["model"].startswith(preset.split("-")[0])
    assert "reconstruct" in said["can"]
    image = next(photos.rglob("*.jp*g"))
    done = maekit_here("reconstruct", "--weights", folder, image, "--out", tmp_path / "p.png")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "p.png").stat().st_size > 1000


def test_its_features_are_judged_and_kept(pretrained, maekit_here, photos, tmp_path):
    _, folder = pretrained
    said = answer(
        maekit_here(
            "probe", "--weights", folder, "--data", photos, "--val", photos, "--kinds", "knn", "linear", "--json",
            "--device", "cpu",
        )
    )  # fmt: skip
    assert all(0 <= said[kind]["top1"] <= 1 for kind in ("knn", "linear"))
    out = tmp_path / "features.npz"
    done = maekit_here("embed", "--weights", folder, "--data", photos, "--out", out, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    vectors = np.load(out)["vector"]
    assert vectors.shape[0] == 12
    assert np.isfinite(vectors).all()
    assert len(np.unique(vectors, axis=0)) == 12


@pytest.mark.parametrize("verb", ["finetune", "scratch"])
def test_it_becomes_a_classifier(pretrained, maekit_here, photos, tmp_path, verb):
    preset, folder = pretrained
    start = ("--weights", folder) if verb == "finetune" else SHAPES[preset]
    if verb == "scratch" and preset.endswith("simmim"):
        pytest.skip("the same network as swin-tiny's")
    words = (verb, SUPERVISED[preset], *start, *STEPS, "--data", photos, "--val", photos, "--out", tmp_path / "run")
    trained = answer(maekit_here(*words, "--json"))
    judged = answer(
        maekit_here("evaluate", "--weights", tmp_path / "run", "--data", photos, "--json", "--device", "cpu")
    )
    assert judged["top1"] == trained["val_top1"]


def test_it_leaves_as_a_timm_model_and_comes_back(pretrained, maekit_here, tmp_path):
    preset, folder = pretrained
    there, back = tmp_path / "timm.safetensors", tmp_path / "back.safetensors"
    assert maekit_here("convert", folder, "--to", "timm", "--out", there).returncode == 0
    arguments = {"embed_dim": 24, "window_size": 16} if preset.startswith("swin") else {"embed_dim": 16}
    name = "swin_tiny_patch4_window7_224" if preset.startswith("swin") else "hiera_tiny_224"
    native = timm.create_model(name, img_size=64, num_classes=0, **arguments)
    native.load_state_dict(load_file(there), strict=True)
    assert maekit_here("convert", there, "--to", "maekit", "--out", back).returncode == 0
    own, returned = storage.read_tensors(folder / "model.safetensors"), storage.read_tensors(back)
    encoder = {name: value for name, value in own.items() if name.startswith("encoder.")}
    assert encoder.keys() == {name for name in returned if name.startswith("encoder.")}
    assert all(torch.equal(value, returned[name]) for name, value in encoder.items())
