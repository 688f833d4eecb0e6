"""Fine-tuning and training from scratch, as a user runs them."""

import json
import signal
import time
from collections import Counter
from dataclasses import replace

import pytest
import torch
from PIL import Image

import maekit
import maekit.presets
import maekit.recipes.execution
from maekit.config import MixConfig
from maekit.data.loader import BadImages, train_batches
from maekit.data.sources import open_source
from maekit.data.sources.subset import few_per_class, labels_of
from maekit.engine import metrics
from maekit.errors import DataError
from maekit.presets import FINETUNE
from maekit.recipes.classify import ClassifyTask, build_model
from processes import Started, in_its_own

SHORT = ("--steps", "6", "--batch-size", "20", "--per-class", "2")


@pytest.fixture(scope="module")
def encoder(maekit_here, tmp_path_factory):
    """A run folder of a digits encoder pretrained for a moment."""
    folder = tmp_path_factory.mktemp("encoder") / "run"
    done = maekit_here("pretrain", "digits", "--steps", 3, "--batch-size", 16, "--val", "", "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def tuned(maekit_here, encoder, tmp_path_factory):
    """(run folder, JSON answer) of a short fine-tuning with everything random and averaged switched on."""
    folder = tmp_path_factory.mktemp("tuned") / "run"
    done = maekit_here("finetune", "digits", "--weights", encoder, *SHORT, *STIRRED, "--out", folder, "--json")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


STIRRED = (
    "--mix.mixup", "0.8", "--mix.cutmix", "1", "--mix.smoothing", "0.1", "--classifier.drop-path", "0.2",
    "--run.ema", "0.9", "--checkpoint-every", "2", "--run.log-every", "1",
)  # fmt: skip


def test_answer_history_and_weights_tell_the_same(tuned):
    folder, answer = tuned
    record = metrics.last(folder / "metrics.jsonl")
    assert answer["run"] == str(folder)
    assert answer["steps"] == 6
    assert answer["val_top1"] == record["val_top1"]
    assert {"val_top1_ema", "val_top5", "val_loss"} <= record.keys()
    model = maekit.load(folder)
    assert isinstance(model, maekit.Classifier)
    assert model.classes == tuple("0123456789")
    assert (folder / "best.safetensors").exists()
    assert (folder / "model_ema.safetensors").exists()
    assert "top" in (folder / "report.html").read_text()


def test_the_best_weights_are_those_that_judged_best(tuned, maekit_here):
    folder, _ = tuned
    best = max(record["val_top1_ema"] for record in metrics.read(folder / "metrics.jsonl") if "val_top1_ema" in record)
    done = maekit_here(
        "evaluate", "--weights", folder / "best.safetensors", "--data", "digits:test", "--crop-share", "1", "--json"
    )
    assert json.loads(done.stdout)["top1"] == best


@pytest.mark.slow
def test_a_killed_fine_tuning_goes_on_bit_for_bit(encoder, tuned, tmp_path):
    whole, _ = tuned
    words = ("finetune", "digits", "--weights", encoder, *SHORT, *STIRRED, "--out", tmp_path / "run", "--resume")
    process = Started(*words)
    while not (tmp_path / "run" / "checkpoints" / "step-4").exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert in_its_own(*words).returncode == 0
    histories = [
        [(r["step"], r["loss"].hex()) for r in metrics.read(folder / "metrics.jsonl")]
        for folder in (whole, tmp_path / "run")
    ]
    assert histories[0] == histories[1]
    for name in ("model.safetensors", "model_ema.safetensors", "best.safetensors"):
        assert (whole / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def test_scratch_starts_from_nothing_and_finetune_from_the_weights(encoder):
    train = open_source("digits:train")
    config = replace(FINETUNE["digits"](), weights=str(encoder))
    pretrained, tuned = maekit.load(encoder), build_model(config, train)
    assert torch.equal(tuned.encoder.blocks[0].attn.qkv.weight, pretrained.encoder.blocks[0].attn.qkv.weight)
    scratch = build_model(maekit.presets.SCRATCH["digits"](), train)
    assert not torch.equal(scratch.encoder.blocks[0].attn.qkv.weight, pretrained.encoder.blocks[0].attn.qkv.weight)
    assert scratch.state_dict().keys() == tuned.state_dict().keys()


def test_frozen_blocks_stay_and_the_others_learn(encoder, maekit_here, tmp_path):
    words = ("finetune", "digits", "--weights", encoder, *SHORT, "--freeze-blocks", "2", "--out", tmp_path / "run")
    assert maekit_here(*words).returncode == 0
    before, after = (maekit.load(folder).encoder.state_dict() for folder in (encoder, tmp_path / "run"))
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed
    assert not [
        name for name in changed if name.startswith(("patch_embed", "cls_token", "pos_embed", "blocks.0.", "blocks.1."))
    ]
    assert [name for name in changed if name.startswith("blocks.2.")]


def test_layer_decay_halves_the_rate_block_by_block(encoder):
    config = replace(FINETUNE["digits"](), weights=str(encoder))
    config = replace(config, optimizer=replace(config.optimizer, layer_decay=0.5))
    train = open_source("digits:train")
    factors = ClassifyTask(build_model(config, train), config.mix, 0.5, None).rate_factors()
    assert factors["encoder.blocks.3.attn.qkv.weight"] == 0.5
    assert factors["encoder.blocks.0.attn.qkv.weight"] == 0.5**4
    assert factors["encoder.patch_embed.proj.weight"] == 0.5**5
    assert not any(name.startswith("head") for name in factors)


def test_mixing_gives_each_step_its_own_blend(encoder):
    train = open_source("digits:train")
    config = replace(FINETUNE["digits"](), weights=str(encoder), mix=MixConfig(mixup=0.8))
    config = replace(config, classifier=replace(config.classifier, head_std=1.0))  # else every class is as likely
    task = ClassifyTask(build_model(config, train).eval(), config.mix, None, None)
    bad = BadImages(train, 0.0)
    shape = {"image_hw": task.model.config.image_hw, "channels": task.model.config.channels}
    steps = {"start_step": 0, "total_steps": 1, "batch_size": 32, "micro_batch": 32, "rank": 0, "world_size": 1}
    batch = next(train_batches(train, config.data, config.augment, seed=0, bad=bad, **shape, **steps))

    def loss(seed):
        torch.manual_seed(seed)
        return float(task.loss(task.prepare(batch))["loss"].detach())

    assert loss(1) == loss(1)
    assert loss(1) != loss(2)


def test_few_per_class_are_so_many_of_each_and_depend_on_the_seed():
    source = open_source("digits:train")
    few = [few_per_class(source, 3, seed) for seed in (0, 0, 1)]
    assert Counter(labels_of(few[0]).tolist()) == dict.fromkeys(range(10), 3)
    paths = [[part.path(i) for i in range(len(part))] for part in few]
    assert paths[0] == paths[1] != paths[2]
    assert few[0].fingerprint() == few[1].fingerprint() != few[2].fingerprint()
    with pytest.raises(DataError, match="were asked for"):
        few_per_class(source, 1000, 0)


@pytest.fixture
def folders(tmp_path):
    """Labelled folders: `two` classes, two `other` ones, `one` class, and a `flat` one."""
    for name, classes in {"two": "ab", "other": "bc", "one": "a", "flat": ""}.items():
        for label in classes or ".":
            (tmp_path / name / label).mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 60).save(tmp_path / name / label / "0.png")
    return tmp_path


@pytest.mark.parametrize(
    ("data", "val", "expected"),
    [
        ("flat", "two", "has no labels"),
        ("two", "flat", "has no labels"),
        ("two", "other", "alone: c"),
        ("one", "one", "has no labels"),
    ],
)
def test_sources_that_do_not_go_together_are_one_line(folders, encoder, maekit_here, data, val, expected):
    out = folders / "run"
    words = ("finetune", "digits", "--weights", encoder, "--data", folders / data, "--val", folders / val)
    done = maekit_here(*words, "--out", out)
    assert done.returncode == 1
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (("--freeze-blocks", "5"), 2, "at most 4"),
        (("--mix.mixup", "0.8", "--batch-size", "15"), 2, "even number"),
        (("--image-size", "16"), 1, "--resample-positions"),
        (("--per-class", "500"), 1, "500 per class were asked for"),
    ],
)
def test_options_that_cannot_be_are_one_line(encoder, maekit_here, tmp_path, words, code, expected):
    done = maekit_here("finetune", "digits", "--weights", encoder, *SHORT, *words, "--out", tmp_path / "run")
    assert done.returncode == code, done.stderr
    assert expected in done.stderr
    assert not (tmp_path / "run").exists()


def test_another_resolution_works_when_asked_for(encoder, maekit_here, tmp_path):
    words = ("--image-size", "16", "--resample-positions", "--out", tmp_path / "run")
    done = maekit_here("finetune", "digits", "--weights", encoder, *SHORT, *words)
    assert done.returncode == 0, done.stderr
    assert maekit.load(tmp_path / "run").config.image_hw == (16, 16)


def test_going_on_from_a_classifier_keeps_its_head(tuned):
    folder, _ = tuned
    train = open_source("digits:train")
    again = build_model(replace(FINETUNE["digits"](), weights=str(folder)), train)
    before = maekit.load(folder)
    assert torch.equal(again.head.weight, before.head.weight)
    assert torch.equal(again.norm.weight, before.norm.weight)


def test_weights_and_verbs_must_go_together(encoder, maekit_here, tmp_path):
    done = maekit_here("scratch", "digits", "--weights", encoder, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "finetune" in done.stderr
    done = maekit_here("finetune", "digits", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "--weights is missing" in done.stderr
