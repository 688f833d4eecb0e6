"""Options of the encoder that are off by default, through every verb."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import tiny
from maekit import storage
from maekit.models.stem import ConvStem

STEPS = (
    "--steps", "2", "--batch-size", "4", "--lr", "1e-3", "--workers", "0", "--device", "cpu", "--precision", "fp32",
    "--run.no-tensorboard",
)  # fmt: skip
OPTIONS = {
    "registers and layer scale": ("--model.register-tokens", "2", "--model.layer-scale", "0.1"),
    "rotary positions": ("--model.positions", "rotary"),
    "channel tokens": ("--model.channel-tokens",),
    "convolutional stem": ("--model.stem", "conv"),
}
REFUSALS = {"registers and layer scale": "has no place", "rotary positions": "a table of positions",
            "channel tokens": "into one patch", "convolutional stem": "has no place"}  # fmt: skip


@pytest.fixture(scope="module", params=OPTIONS)
def pretrained(request, maekit_here, photos, tmp_path_factory):
    """(which options, run folder)."""
    folder = tmp_path_factory.mktemp("run") / "run"
    words = ("pretrain", "vit-tiny", *tiny.SIZES, *STEPS, *OPTIONS[request.param])
    answer(maekit_here(*words, "--data", photos, "--out", folder, "--json"))
    return request.param, folder


def answer(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_weights_say_what_they_are(pretrained, maekit_here):
    options, folder = pretrained
    said = answer(maekit_here("inspect", folder, "--json"))
    if options == "rotary positions":
        assert said["positions"] == "rotary"
    else:
        own = {"channel tokens": "channel tokens True", "convolutional stem": "stem conv"}
        assert said["model"].endswith(own.get(options, "register tokens 2, layer scale 0.1"))
    assert said["patch_size"] == [8, 8]


def test_it_paints_and_its_features_are_judged_and_kept(pretrained, maekit_here, photos, tmp_path):
    options, folder = pretrained
    image = next(photos.rglob("*.png"))
    assert maekit_here("reconstruct", "--weights", folder, image, "--out", tmp_path / "p.png").returncode == 0
    words = ("--data", photos, "--val", photos, "--kinds", "knn", "--sweep", "--device", "cpu", "--json")
    assert 0 <= answer(maekit_here("probe", "--weights", folder, *words))["knn"]["top1"] <= 1
    patches = 3 * 16 if options == "channel tokens" else 16
    for tokens, shape in (("patches", (12, patches, 32)), ("class", (12, 32))):
        out = tmp_path / f"{tokens}.npz"
        words = ("--data", photos, "--out", out, "--tokens", tokens, "--device", "cpu")
        assert maekit_here("embed", "--weights", folder, *words).returncode == 0
        assert np.load(out)["vector"].shape == shape


def test_it_is_fine_tuned_with_layer_decay_at_another_size(pretrained, maekit_here, photos, tmp_path):
    options, folder = pretrained
    words = (
        "finetune",
        "vit-tiny",
        "--weights",
        folder,
        "--image-size",
        "48",
        *STEPS,
        "--data",
        photos,
        "--val",
        photos,
    )
    resample = () if options == "rotary positions" else ("--classifier.resample-positions",)
    if options == "convolutional stem":
        words += ("--classifier.patch-drop", "0.5")
    trained = answer(
        maekit_here(*words, *resample, "--optimizer.layer-decay", "0.5", "--out", tmp_path / "run", "--json")
    )
    judged = answer(
        maekit_here("evaluate", "--weights", tmp_path / "run", "--data", photos, "--json", "--device", "cpu")
    )
    assert judged["top1"] == trained["val_top1"]


def test_pretraining_goes_on_with_the_same_options_alone(pretrained, maekit_here, photos, tmp_path):
    options, folder = pretrained
    words = ("pretrain", "vit-tiny", *tiny.SIZES, *STEPS, "--weights", folder, "--data", photos)
    assert maekit_here(*words, *OPTIONS[options], "--out", tmp_path / "same").returncode == 0
    done = maekit_here(*words, "--out", tmp_path / "other")
    assert done.returncode == 1
    assert "the file has (" in done.stderr.splitlines()[-1]


def test_timm_takes_it_and_gives_it_back(pretrained, maekit_here, tmp_path):
    options, folder = pretrained
    there, back = tmp_path / "timm.safetensors", tmp_path / "back.safetensors"
    assert maekit_here("convert", folder, "--to", "timm", "--out", there).returncode == 0
    with safe_open(there, framework="pt") as file:
        card = file.metadata()
    stem = {"embed_layer": ConvStem} if options == "convolutional stem" else {}
    native = timm.create_model(card["architecture"], num_classes=0, **json.loads(card["model_args"]), **stem)
    native.load_state_dict(load_file(there), strict=True)
    assert maekit_here("convert", there, "--to", "maekit", "--out", back).returncode == 0
    own, returned = storage.read_tensors(folder / "model.safetensors"), storage.read_tensors(back)
    encoder = {name: value for name, value in own.items() if name.startswith("encoder.")}
    assert encoder.keys() == returned.keys()
    assert all(torch.equal(value, returned[name]) for name, value in encoder.items())


def test_graphs_are_written_and_layouts_without_such_parts_refuse_in_one_line(pretrained, maekit_here, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    options, folder = pretrained
    said = answer(maekit_here("convert", folder, "--to", "onnx", "--out", tmp_path / "w.onnx", "--json"))
    assert said["part"] == "reconstructor"
    for to, out in (("huggingface", "folder"), ("facebook", "w.pth")):
        done = maekit_here("convert", folder, "--to", to, "--out", tmp_path / out)
        assert done.returncode == 1
        assert REFUSALS[options] in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("channels", [1, 6])
def test_images_of_any_number_of_channels_have_channel_tokens(channels, maekit_here, photos, tmp_path):
    for number in range(8):
        values = np.random.default_rng(number).integers(0, 256, (32, 32, channels), np.uint8)
        folder = tmp_path / "arrays" / ("even", "odd")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{number}.npy", values)
    data, run, tuned = tmp_path / "arrays", tmp_path / "run", tmp_path / "tuned"
    words = ("pretrain", "vit-tiny", *tiny.SIZES, *STEPS, "--model.channel-tokens", "--model.channels", channels)
    answer(
        maekit_here(*words, "--mask.kind", "block", "--normalise", "measured", "--data", data, "--out", run, "--json")
    )
    assert (run / "pictures" / "reconstruction.png").exists()
    mask, painted = tmp_path / "mask.png", tmp_path / "painted.png"
    Image.fromarray(np.repeat([[0, 255]], 2, axis=0).astype(np.uint8)).save(mask)
    said = answer(maekit_here("reconstruct", "--weights", run, data, "--mask", mask, "--out", painted, "--json"))
    assert said["masked"] == 0.5
    words = ("finetune", "vit-tiny", "--weights", run, *STEPS, "--mix.cutmix", "1.0", "--augment.randaugment", "")
    answer(maekit_here(*words, "--data", data, "--val", data, "--out", tuned, "--json"))
    assert answer(maekit_here("classify", "--weights", tuned, data, "--device", "cpu", "--json"))["images"]
    features = tmp_path / "features.npz"
    assert maekit_here("embed", "--weights", run, "--data", data, "--out", features).returncode == 0
    assert np.load(features)["vector"].shape == (8, 32)
    if channels == 6:
        done = maekit_here("embed", "--weights", run, "--data", photos, "--out", features)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
