"""Looking at held-out images is no dearer than it is worth: of a short run few, of a long one all."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny
from maekit.config import DecoderConfig, MaskConfig, ModelConfig, TargetConfig
from maekit.data.sources import open_source
from maekit.data.sources.subset import SubsetSource
from maekit.engine.distributed import World
from maekit.models import cost, mae
from maekit.presets import PRETRAIN
from maekit.recipes.pretrain import Pretraining

SMALL = ModelConfig(
    encoder="vit_tiny_patch16_224", image_size=8, patch_size=2, channels=1, width=32, depth=2, heads=2,
    decoder=DecoderConfig(kind="cross", width=16, depth=1, heads=2),
)  # fmt: skip


class Many(SubsetSource):
    """The digits over and over, 6,000 of them."""

    def __init__(self, source):
        super().__init__(source, np.arange(6000) % len(source))


@pytest.fixture
def begun(monkeypatch):
    """A training of so many steps on 6,000 images, with 6,000 held out, as it is before its first step."""
    monkeypatch.setattr("maekit.recipes.training.open_source", lambda *_: Many(open_source("digits:train")))
    monkeypatch.setattr("maekit.recipes.training.say_shared", lambda *_: 0)

    def begin(steps, **validation):
        config = PRETRAIN["digits"]()
        schedule = replace(config.schedule, steps=steps, epochs=None, batch_size=64)
        config = replace(config, model=SMALL, schedule=schedule, validation=replace(config.validation, **validation))
        return Pretraining(config, World(torch.device("cpu")))

    return begin


@pytest.mark.parametrize(("steps", "images"), [(40, 1000), (100_000, 5000)])
def test_a_short_run_looks_at_few_and_says_so(begun, caplog, steps, images):
    caplog.set_level("INFO")
    assert begun(steps).config.validation.images == images
    said = "validation looks at 1,000 of 6,000 held-out and 1,000 of 6,000 training images: more"
    assert (said in caplog.text) == (images == 1000)


def test_between_both_it_takes_a_fifth_of_the_work(begun):
    run = begun(4000)
    images = run.config.validation.images
    assert 1000 < images < 5000
    forward, features = cost.forward_gflop(run.model), cost.features_gflop(run.model)
    looks = 21 * images * (forward + 2 * features)
    assert looks == pytest.approx(0.2 * 3 * forward * 4000 * 64, rel=1e-3)


def test_held_out_images_without_labels_are_looked_at_alone(begun, caplog, monkeypatch):
    labelled = begun(4000).config.validation.images
    sources = iter([Many(open_source("digits:train")), Many(open_source("digits:train"))])
    monkeypatch.setattr("maekit.recipes.training.open_source", lambda *_: next(sources))
    monkeypatch.setattr("maekit.recipes.validation.matching_classes", lambda *_: None)
    caplog.clear()
    caplog.set_level("INFO")
    images = begun(4000).config.validation.images
    assert images > labelled
    assert f"validation looks at {images:,} of 6,000 held-out images: more" in caplog.text


def test_what_is_asked_for_is_done(begun, caplog):
    caplog.set_level("INFO")
    assert begun(40, images=4321).config.validation.images == 4321
    assert "validation looks at" not in caplog.text


def test_fewer_looks_leave_more_images(begun):
    assert begun(4000, every=10.0).config.validation.images > begun(4000).config.validation.images


def test_features_of_a_whole_image_cost_what_its_blocks_do():
    model = mae.build(tiny.model_config(), TargetConfig(kind="raw"), MaskConfig(), (0.5,) * 3, (0.5,) * 3, seed=0)
    tokens, width = 24 + 1, 32
    block = 2 * (12 * width * width + 2 * tokens * width)  # a token's: its layers, and its attention
    embedding = 2 * 24 * (4 * 4 * 3) * width
    assert cost.features_gflop(model) == pytest.approx((3 * tokens * block + embedding) / 1e9, rel=0.02)
