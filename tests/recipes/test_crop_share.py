"""The centre that evaluation looks at: by the images' size where nothing says it, and kept with the weights."""

import json
from dataclasses import replace

import pytest

import tiny
from maekit import presets
from maekit.config.data import crop_share_for
from maekit.data.sources import open_source
from maekit.inference.one_pass import crop_share_of
from maekit.models.encoder import ImageEncoder
from maekit.recipes.classify import build_model
from maekit.weights.load import load

SIZES = [(224, 0.875), (96, 0.875), (225, 1.0), (448, 1.0), ((224, 224), 0.875), ((192, 256), 1.0)]


def shaped(size, **changes):
    """A classifier's config whose images have this size."""
    preset = presets.SCRATCH["vit-tiny"]()
    height, width = (size, size) if isinstance(size, int) else size
    model = tiny.model_config(image_size=size, patch_size=(height // 3, width // 2 or 1), channels=1)
    model = replace(model, image_size=(height // 3 * 3, width // 2 * 2))
    return replace(preset, model=model, validation=replace(preset.validation, **changes))


@pytest.mark.parametrize(("size", "share"), SIZES)
def test_larger_images_are_seen_whole(size, share):
    """util/datasets.py of arXiv 2111.06377's code: 224 of 256 up to 224 px, all of it above."""
    assert crop_share_for((size, size) if isinstance(size, int) else size) == share


@pytest.mark.parametrize(("size", "share"), [(96, 0.875), (252, 1.0)])
@pytest.mark.parametrize("asked", [None, 0.75])
def test_a_classifier_keeps_the_share_that_it_is_judged_with(size, share, asked):
    model = build_model(shaped(size, crop_share=asked), open_source("digits:train"))
    assert model.crop_share == (asked or share)


@pytest.mark.parametrize(("size", "share"), [((16, 24), 0.875), ((240, 24), 1.0)])
def test_weights_that_do_not_say_it_are_judged_by_their_size(size, share):
    model = ImageEncoder(tiny.model_config(image_size=size, patch_size=(8, 4)), mean=(0.5,) * 3, std=(0.5,) * 3)
    assert model.crop_share is None
    assert crop_share_of(model, None) == share
    assert crop_share_of(model, 0.5) == 0.5


@pytest.mark.parametrize(("size", "share"), [("32", 0.875), ("240", 1.0)])
def test_a_run_writes_down_the_share_it_used(maekit_here, tmp_path, size, share):
    run = tmp_path / "run"
    done = maekit_here(
        "pretrain", "vit-tiny", "--data", "digits:train", *tiny.SIZES, "--image-size", size, "--steps", 1,
        "--model.channels", 1, "--batch-size", 2, "--workers", 0, "--schedule.warmup-epochs", 0, "--out", run,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "config.json").read_text())["config"]["validation"]["crop_share"] == share
    assert load(run).crop_share == share


@pytest.mark.parametrize("group", [presets.FINETUNE, presets.SCRATCH])
def test_presets_of_the_paper_leave_it_to_the_size(group):
    shares = {name: preset().validation.crop_share for name, preset in group.items()}
    small = {"cifar", "cifar-laptop", "digits", "vit-tiny-small-data"}
    assert {name for name, share in shares.items() if share is not None} == small & shares.keys()
