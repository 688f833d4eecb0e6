"""Presets are the recipes whose numbers they cite."""

import math
import re
from dataclasses import replace

import pytest

from maekit import presets
from maekit.data.sources import open_source
from maekit.engine.schedule import Plan
from maekit.models import mae
from maekit.recipes.classify import build_model
from maekit.weights import native

IMAGENET = 1_281_167


def rates(config, *epochs):
    """The learning rate at so many epochs over ImageNet."""
    plan = Plan.of(config.optimizer, config.schedule, IMAGENET)
    return [plan.learning_rate(round(epoch * IMAGENET / plan.batch_size)) for epoch in epochs]


class TestSimMIM:
    """arXiv 2111.09886: pretrained at 192 px with windows of 6, fine-tuned at 224 px with windows of 7."""

    def test_100_epochs_follow_a_cosine(self):
        config = presets.PRETRAIN["swin-base-simmim"]()
        assert rates(config, 10, 100) == pytest.approx([8e-4, 4e-5], rel=1e-3)

    def test_800_epochs_keep_half_the_rate_until_epoch_700(self):
        config = presets.PRETRAIN["swin-base-simmim-800"]()
        assert config.schedule.epochs == 800
        assert rates(config, 10, 400, 699, 701, 799) == pytest.approx([4e-4, 4e-4, 4e-4, 4e-5, 4e-5])

    def test_rates_grow_with_the_batch_as_in_its_code(self):
        for config in (presets.PRETRAIN["swin-base-simmim-800"](), presets.FINETUNE["swin-base-simmim"]()):
            full, half = (config.optimizer.actual_lr(batch) for batch in (2048, 1024))
            assert half == pytest.approx(full / 2)

    def test_the_two_pretrainings_differ_in_rate_and_length_alone(self):
        one, other = (presets.PRETRAIN[f"swin-base-simmim{length}"]() for length in ("", "-800"))
        for group in ("model", "mask", "target", "augment", "data"):
            assert getattr(one, group) == getattr(other, group)
        assert (one.model.image_size, one.model.window, one.augment.interpolation) == (192, 6, "bilinear")

    @pytest.mark.parametrize(("size", "window", "expected"), [(None, None, (224, 7)), (192, 6, (192, 6))])
    def test_fine_tuning_is_at_another_size_and_window_than_pretraining(self, tmp_path, size, window, expected):
        pretraining, tuning = presets.PRETRAIN["swin-base-simmim"](), presets.FINETUNE["swin-base-simmim"]()
        narrow = replace(pretraining, model=replace(pretraining.model, width=32))
        native.save(
            mae.build(narrow.model, narrow.target, narrow.mask, (0.5,) * 3, (0.5,) * 3, seed=narrow.run.seed),
            tmp_path / "w.safetensors",
        )
        if size is not None:
            tuning = replace(tuning, classifier=replace(tuning.classifier, image_size=size, window=window))
        model = build_model(replace(tuning, weights=str(tmp_path / "w.safetensors")), open_source("digits:train"))
        assert (model.config.image_size, model.config.window) == expected
        assert model.encoder.layers[0].blocks[0].window_size == (expected[1],) * 2
        assert model.crop_share == 0.875

    @pytest.mark.parametrize(("name", "decay"), [("swin-base-simmim", 0.9), ("swin-base-simmim-800", 0.8)])
    def test_fine_tuning(self, name, decay):
        config = presets.FINETUNE[name]()
        assert config.optimizer.layer_decay == decay
        assert (config.optimizer.clip, config.classifier.drop_path, config.classifier.head_std) == (5.0, 0.1, 0.02)
        assert rates(config, 20, 100) == pytest.approx([5e-3, 1e-6], rel=1e-3)


@pytest.mark.parametrize("name", ["vit-tiny-flyegle", "vit-base-flyegle"])
def test_flyegles_settings_are_those_of_its_code(name):
    config = presets.PRETRAIN[name]()
    assert (config.augment.crop, config.augment.scale, config.augment.interpolation) == (
        "random",
        (0.08, 1),
        "bilinear",
    )
    assert config.augment.ratio == pytest.approx((3 / 4, 4 / 3))
    assert config.model.norm_eps == config.model.decoder.norm_eps == 1e-5
    assert (config.optimizer.eps, config.optimizer.betas, config.optimizer.weight_decay) == (1e-8, (0.9, 0.95), 0.05)
    assert config.optimizer.decay_all
    assert config.schedule.warmup_epochs == 40
    first, last, peak = config.schedule.epochs - 40, config.schedule.epochs, config.optimizer.lr
    assert rates(config, first) == pytest.approx([0], abs=1e-9)
    assert rates(config, last)[0] == pytest.approx(peak * (1 - math.cos(math.pi * 40 / first)) / 2, rel=1e-3)


def test_crossmae_has_its_decoder_and_its_layer_decay():
    """arXiv 2401.14391 and its released code, for the 79.32 of ViT-S."""
    config = presets.PRETRAIN["vit-small-crossmae"]()
    decoder = config.model.decoder
    assert (decoder.kind, decoder.width, decoder.heads, decoder.depth) == ("cross", 256, 8, 12)
    assert decoder.feature_maps == 1 + 12
    assert decoder.predicted_share == 1
    assert rates(config, 40) == pytest.approx([2.4e-3], rel=1e-3)
    assert presets.FINETUNE["vit-small-crossmae"]().optimizer.layer_decay == 0.65


def documented(group):
    return [pytest.param(preset.__doc__, id=name) for name, preset in group.items()]


@pytest.mark.parametrize("text", documented(presets.PRETRAIN) + documented(presets.FINETUNE))
@pytest.mark.parametrize(
    ("number", "said"),
    [
        ("83.5", r"224 px,? (with )?windows of 7"),
        ("84.0", r"224 px,? (with )?windows of 7"),
        ("82.20", r"256 px"),
        ("79.32", r"CrossMAE's"),
        (r"82\.8 at (192|its own 192)", r"windows of 6"),
    ],
)
def test_a_published_number_stands_beside_its_setting(text, number, said):
    if re.search(number, " ".join(text.split())):
        assert re.search(said, " ".join(text.split()))
