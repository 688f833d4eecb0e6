"""The range of stored values goes from training into the weights and from there into everything that uses them."""

import json

import numpy as np
import pytest
from PIL import Image

import maekit
import tiny

FEW = ("--lr", "1e-3", "--batch-size", "4", "--workers", "0", "--device", "cpu")


@pytest.fixture(scope="module")
def twelve_bits(tmp_path_factory):
    """Two classes of 12-bit images in 16-bit files."""
    folder = tmp_path_factory.mktemp("twelve")
    for number in range(8):
        values = np.random.default_rng(number).integers(0, 4096 if number % 2 else 2048, (32, 32), dtype=np.uint16)
        (folder / "ab"[number % 2]).mkdir(exist_ok=True)
        Image.fromarray(values).save(folder / "ab"[number % 2] / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def run(maekit_here, twelve_bits, tmp_path_factory):
    """A pretraining with a measured range, and what was printed."""
    out = tmp_path_factory.mktemp("range") / "run"
    done = maekit_here(
        "pretrain", "vit-tiny", "--data", twelve_bits, "--val", twelve_bits, *tiny.SIZES, *FEW, "--steps", "2",
        "--data.range", "measured", "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out, done.stderr


def test_measured_numbers_are_printed_saved_and_kept_in_the_weights(run, maekit_here, twelve_bits):
    out, printed = run
    low, high = json.loads((out / "config.json").read_text())["config"]["data"]["range"]
    assert low == pytest.approx(2, abs=3)
    assert high == pytest.approx(4091, abs=5)
    assert f"range: {low:g} to {high:g} become black to white" in printed
    assert maekit.load(out).value_range == (low, high)
    again = maekit_here(
        "pretrain", "vit-tiny", "--data", twelve_bits, "--val", twelve_bits, *tiny.SIZES, *FEW, "--steps", "2",
        "--data.range", "measured", "--out", out, "--resume",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr


def test_fine_tuning_takes_the_range_of_the_weights_or_warns(run, maekit_here, twelve_bits, tmp_path):
    words = (
        "finetune",
        "vit-tiny",
        "--weights",
        run[0],
        "--data",
        twelve_bits,
        "--val",
        twelve_bits,
        *FEW,
        "--steps",
        "1",
    )
    own = maekit_here(*words, "--out", tmp_path / "own")
    assert "become black to white, as for" in own.stderr
    assert maekit.load(tmp_path / "own").value_range == maekit.load(run[0]).value_range
    other = maekit_here(*words, "--out", tmp_path / "other", "--data.range", "0", "4095")
    assert "as black to white, not of 0 to 4095" in other.stderr
    assert maekit.load(tmp_path / "other").value_range == (0, 4095)


def test_features_are_those_of_images_in_the_range(run, maekit_here, twelve_bits, tmp_path):
    """The same images, scaled beforehand, through the same weights without a range."""
    model = maekit.load(run[0])
    low, high = model.value_range
    for file in twelve_bits.rglob("*.png"):
        values = np.clip((np.asarray(Image.open(file)).astype(np.float64) - low) / (high - low), 0, 1)
        np.save(tmp_path / f"{file.stem}.npy", values.astype(np.float32))
    model.value_range = None
    from maekit.weights import native

    native.save(model, tmp_path / "plain.safetensors")
    for weights, data, out in ((run[0], twelve_bits, "one"), (tmp_path / "plain.safetensors", tmp_path, "other")):
        done = maekit_here("embed", "--weights", weights, "--data", data, "--out", tmp_path / f"{out}.npz")
        assert done.returncode == 0, done.stderr
    one, other = np.load(tmp_path / "one.npz"), np.load(tmp_path / "other.npz")
    order = np.argsort([str(path)[-5:] for path in one["path"]]), np.argsort([str(path)[-5:] for path in other["path"]])
    assert one["vector"][order[0]] == pytest.approx(other["vector"][order[1]], abs=1e-4)


def test_converted_weights_keep_it(run, maekit_here, tmp_path):
    for layout in ("timm", "huggingface", "maekit"):
        part = ("--part", "encoder") if layout == "timm" else ()
        done = maekit_here("convert", run[0], "--to", layout, *part, "--out", tmp_path / layout)
        assert done.returncode == 0, done.stderr
        assert maekit.load(tmp_path / layout).value_range == maekit.load(run[0]).value_range


def test_a_picture_of_dark_values_is_stretched_and_says_so(maekit_here, twelve_bits, tmp_path):
    from maekit.inference import reconstruct

    done = maekit_here(
        "pretrain", "vit-tiny", "--data", twelve_bits, *tiny.SIZES, *FEW, "--steps", "1", "--out", tmp_path / "dark"
    )
    assert done.returncode == 0, done.stderr
    done = maekit_here("reconstruct", twelve_bits, "--weights", tmp_path / "dark", "--out", tmp_path / "picture.png")
    assert done.returncode == 0, done.stderr
    picture = np.asarray(Image.open(tmp_path / "picture.png").convert("L"))
    original = picture[80:180, -150:-60]
    assert original.std() > 20
    import torch

    model = maekit.load(tmp_path / "dark")
    dark = torch.rand(2, 3, 32, 32) * 0.06
    assert "Stretched for display: " in reconstruct.caption(model, "visible", dark)
    assert "Stretched" not in reconstruct.caption(model, "visible", dark / 0.06)
    assert "Stretched" not in reconstruct.caption(model, "visible", (dark * 255).byte())


def test_a_damaged_range_in_a_file_is_one_line(run, maekit_here, tmp_path):
    from maekit import storage
    from maekit.weights import native

    model = maekit.load(run[0])
    model.value_range = (3.0, 1.0)
    storage.write_tensors(tmp_path / "odd.safetensors", model.state_dict(), native.metadata(model))
    done = maekit_here("inspect", tmp_path / "odd.safetensors")
    assert done.returncode == 1
    assert "its header is damaged" in done.stderr
