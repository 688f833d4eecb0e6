"""Features that all point in one direction are said to, by whoever looks at them, with what to change."""

import shutil

import pytest
import torch

import tiny
from maekit.engine.evaluate import collapse, rankme

ONE = "the features of all {} images point in about one direction"
WORDS = ("--batch-size", "16", "--run.no-tensorboard", "--workers", "0")


@pytest.fixture(scope="module")
def hasty(maekit_here, tmp_path_factory):
    """A run far too short, of which nothing was held out."""
    folder = tmp_path_factory.mktemp("hasty") / "run"
    done = maekit_here("pretrain", "digits", "--steps", "3", "--val", "", "--out", folder, *WORDS)
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


def test_only_what_is_near_one_direction_is_told():
    flat, round_ = torch.ones(50, 8) + 0.01 * torch.randn(50, 8), torch.randn(50, 8)
    assert ONE.format(50) in collapse(rankme(flat), 50)
    assert collapse(rankme(round_), 50) is None
    assert collapse(rankme(flat[:1]), 1) is None  # one image has one direction


def test_pretraining_says_it_at_its_end_with_and_without_held_out_images(hasty, maekit_here, tmp_path):
    assert ONE.format(500) in hasty[1]
    assert "pretrain longer (more --epochs or --steps)" in hasty[1]
    done = maekit_here("pretrain", "digits", "--steps", "3", "--out", tmp_path / "run", *WORDS)
    assert ONE.format(360) in done.stderr


def test_probing_says_it(hasty, maekit_here):
    words = ("probe", "--weights", hasty[0], "--data", "digits:train", "--val", "digits:test", "--kinds", "knn")
    done = maekit_here(*words, "--per-class", "20")
    assert done.returncode == 0, done.stderr
    assert ONE.format(360) in done.stderr


def test_an_unreadable_image_that_no_step_saw_does_not_cost_the_weights(maekit_here, tmp_path, photos):
    """Features in the end are of more images than a short run saw."""
    for number, file in enumerate(sorted(photos.glob("*/*.png"))):
        shutil.copy(file, tmp_path / f"{number}.png")
    (tmp_path / "torn.png").write_bytes(b"no picture")
    out = tmp_path / "run"
    words = ("--data", tmp_path, "--out", out, "--batch-size", "1", "--steps", "1", "--lr", "1e-3", "--workers", "0")
    for seed in range(9):
        done = maekit_here(
            "pretrain", "vit-tiny", *tiny.SIZES, *words, "--data.bad-share", "0", "--seed", seed, "--overwrite"
        )
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    assert (out / "model.safetensors").exists()
    assert (out / "report.html").exists()
