"""A Swin at other windows than it was pretrained with, through the commands."""

import json

import pytest
import timm
import torch

import maekit
from maekit.cli import main
from maekit.config import DecoderConfig, MaskConfig, ModelConfig, TargetConfig
from maekit.models.mae import MaskedAutoencoder
from maekit.weights import native

SHORT = (
    "--steps", "1", "--batch-size", "4", "--lr", "1e-3", "--workers", "0", "--device", "cpu", "--precision", "fp32",
    "--run.no-tensorboard",
)  # fmt: skip


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """SimMIM's at half its size: 96 px, windows of 3, so that no 128 px can be seen without another window."""
    path = tmp_path_factory.mktemp("pretrained") / "w.safetensors"
    torch.manual_seed(0)
    config = ModelConfig(
        encoder="swin_tiny_patch4_window7_224",
        image_size=96,
        window=3,
        width=24,
        swin_method="dense",
        decoder=DecoderConfig(kind="linear"),
    )
    half = (0.5,) * 3
    native.save(MaskedAutoencoder(config, TargetConfig(kind="raw"), MaskConfig(ratio=0.6), mean=half, std=half), path)
    return path


@pytest.fixture(scope="module")
def tuned(pretrained, photos, maekit_here, tmp_path_factory):
    """(run folder, what finetune said)."""
    out = tmp_path_factory.mktemp("tuned") / "run"
    return out, answer(
        maekit_here(
            "finetune", "swin-tiny", "--weights", pretrained, "--data", photos, "--val", photos, *SHORT, "--out", out,
            "--image-size", "128", "--classifier.window", "4", "--json",
        )
    )  # fmt: skip


def answer(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_fine_tuning_at_another_window_is_what_its_weights_say(tuned, maekit_here, photos):
    out, said = tuned
    model = maekit.load(out)
    assert (model.config.window, model.config.image_hw) == (4, (128, 128))
    assert [stage.blocks[0].window_size for stage in model.encoder.layers] == [(4, 4)] * 4
    assert answer(maekit_here("evaluate", "--weights", out, "--data", photos, "--json", "--device", "cpu"))[
        "top1"
    ] == said["val_top1"]  # fmt: skip
    inspected = answer(maekit_here("inspect", out, "--json"))
    assert inspected["model"] == "swin_tiny_patch4_window7_224 with width 24, window 4"
    assert inspected["image_size"] == [128, 128]
    image = next(photos.rglob("*.jp*g"))
    assert maekit_here("classify", "--weights", out, image, "--device", "cpu").returncode == 0


def test_it_leaves_for_timm_with_its_window(tuned, maekit_here, tmp_path):
    out, _ = tuned
    assert maekit_here("convert", out, "--to", "timm", "--out", tmp_path / "timm").returncode == 0
    theirs, own = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval(), maekit.load(out)
    images = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(own(images), theirs(images), atol=1e-5, rtol=1e-5)


def test_convert_and_embed_change_windows_as_well(pretrained, maekit_here, photos, tmp_path):
    out = tmp_path / "w.safetensors"
    words = ("--image-size", "128", "--window", "4")
    done = maekit_here("convert", pretrained, "--to", "maekit", "--out", out, *words)
    assert done.returncode == 0, done.stderr
    assert maekit.load(out).config.window == 4
    done = maekit_here(
        "embed", "--weights", pretrained, "--data", photos, "--out", tmp_path / "f.npz", *words, "--device", "cpu"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--image-size", "128"), "or --window 4 (in finetune --classifier.window 4), which resamples position biases"),
        (("--image-size", "128", "--classifier.window", "3"), "windows of 3 patches do not divide images of 128x128"),
        (("--classifier.window", "5"), "take --window 6 (in finetune --classifier.window 6)"),
        (("--classifier.window", "0"), "classifier.window: should be greater than or equal to 1"),
    ],
)
def test_a_window_that_does_not_fit_is_one_line(pretrained, maekit_here, photos, tmp_path, words, expected):
    out = tmp_path / "run"
    done = maekit_here(
        "finetune", "swin-tiny", "--weights", pretrained, "--data", photos, "--val", photos, *SHORT, "--out", out,
        *words,
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert expected in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_scratch_names_its_own_option(maekit_here, photos, tmp_path):
    words = ("--data", photos, "--val", photos, "--classifier.window", "4", "--out", tmp_path / "run")
    done = maekit_here("scratch", "swin-tiny", *words)
    assert done.returncode == 2
    assert "--classifier.window: belongs to finetune; in scratch --model.window is the model's own" in done.stderr


def test_inspect_changes_nothing_and_says_so(maekit_here, pretrained):
    done = maekit_here("inspect", pretrained, "--window", "4")
    assert done.returncode == 2
    assert "--window: weights are shown as they are; maekit convert changes them" in done.stderr


@pytest.mark.parametrize(
    ("verb", "words", "name"),
    [
        ("finetune", ("swin-tiny", "--help-all"), "--classifier.window"),
        ("convert", ("--help",), "--window"),
        ("probe", ("--help-all",), "--window"),
    ],
)
def test_help_knows_it(capsys, verb, words, name):
    with pytest.raises(SystemExit):
        main([verb, *words])
    assert name in capsys.readouterr().out
