"""Swin and Hiera through the same commands as ViT."""

import json
import shutil

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from maekit import presets, storage
from maekit.engine import metrics

SHAPES = {
    "swin-tiny": ("--image-size", "64", "--model.width", "24", "--model.decoder.width", "32"),
    "swin-tiny-simmim": ("--image-size", "64", "--model.width", "24", "--model.window", "16"),
    "hiera-tiny": ("--image-size", "64", "--model.width", "16", "--model.decoder.width", "32"),
}
SUPERVISED_SHAPES = {
    "swin-tiny": ("--image-size", "64", "--model.width", "24"),
    "hiera-tiny": ("--image-size", "64", "--model.width", "16"),
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
    again = tmp_path / "run"
    shutil.copytree(folder, again)
    (again / "checkpoints" / "step-4" / "manifest.json").unlink()
    (again / "model.safetensors").unlink()
    done = maekit_here(
        "pretrain", preset, *SHAPES[preset], *STEPS, "--checkpoint-every", "2", "--data", photos, "--out", again,
        "--resume",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "going on from step 2" in done.stderr
    losses = [[r["loss"] for r in metrics.read(run / "metrics.jsonl")] for run in (folder, again)]
    assert losses[0] == losses[1]
    tensors = [storage.read_tensors(run / "model.safetensors") for run in (folder, again)]
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


def test_a_mask_of_ones_own_is_painted_or_refused_in_one_line(pretrained, maekit_here, photos, tmp_path):
    """Hidden: the right half. The packed Swin needs one visible patch in every 2x2."""
    preset, folder = pretrained
    Image.fromarray(np.repeat([[0, 255]], 2, axis=0).astype(np.uint8)).save(tmp_path / "mask.png")
    out = tmp_path / "p.png"
    image = next(photos.rglob("*.jp*g"))
    done = maekit_here(
        "reconstruct", "--weights", folder, image, "--mask", tmp_path / "mask.png", "--out", out, "--json"
    )
    if preset == "swin-tiny":
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].endswith("takes one_in_2x2")
        assert not out.exists()
    else:
        assert answer(done)["masked"] == 0.5
        assert out.exists()


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


def test_it_becomes_a_classifier(pretrained, maekit_here, photos, tmp_path):
    preset, folder = pretrained
    check_classifier(maekit_here, photos, tmp_path / "run", "finetune", SUPERVISED[preset], "--weights", folder)


@pytest.mark.parametrize("preset", SUPERVISED_SHAPES)
def test_it_trains_from_nothing(preset, maekit_here, photos, tmp_path):
    check_classifier(maekit_here, photos, tmp_path / "run", "scratch", preset, *SUPERVISED_SHAPES[preset])


@pytest.mark.parametrize(
    ("name", "layer_decay"), [("swin-tiny", 0.85), ("swin-base", 0.9), ("hiera-tiny", 0.75), ("hiera-base", 0.75)]
)
def test_both_supervised_presets_are_of_the_network_that_is_pretrained(name, layer_decay):
    tuned, scratch, pretrained = presets.FINETUNE[name](), presets.SCRATCH[name](), presets.PRETRAIN[name]()
    assert scratch.model == pretrained.model
    assert tuned.model is None
    assert (tuned.optimizer.layer_decay, scratch.optimizer.layer_decay) == (layer_decay, None)
    assert {tuned.name, scratch.name, pretrained.name} == {name}


def check_classifier(maekit_here, photos, out, *words):
    """What training says of the result, evaluate says of its weights."""
    trained = answer(maekit_here(*words, *STEPS, "--data", photos, "--val", photos, "--out", out, "--json"))
    judged = answer(maekit_here("evaluate", "--weights", out, "--data", photos, "--json", "--device", "cpu"))
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


@pytest.mark.parametrize(("size", "warned"), [("64", True), ("128", False)])
def test_a_packed_last_stage_of_one_token_is_said_at_the_start(maekit_here, photos, tmp_path, size, warned):
    words = ("pretrain", "swin-tiny", "--model.width", "24", "--model.decoder.width", "32", "--image-size", size)
    done = maekit_here(*words, *STEPS, "--steps", "1", "--data", photos, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "one token a window" in line]
    assert len(said) == warned
    assert all("such as 128" in line for line in said)
