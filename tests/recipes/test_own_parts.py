"""A mask, target and loss of the user's own are honoured in training, validation, pictures, and kept by name."""

import json

import numpy as np
import pytest
import torch

import maekit
import own_parts
from maekit import parts
from maekit.config.verbs import WeightsOptions
from maekit.data.sources import open_source
from maekit.data.sources.source import evenly_spread
from maekit.errors import UsageError
from maekit.inference.one_pass import any_unreadable, seen_by
from maekit.patches import take_patches
from maekit.randomness import keys_tensor
from tiny import SIZES

RUN = ("--data", "digits:train", "--val", "digits:test", *SIZES, "--model.channels", "1", "--steps", "4",
       "--batch-size", "32", "--workers", "0", "--augment.crop", "none", "--augment.flip", "0", "--validation.images",
       "40", "--run.no-tensorboard")  # fmt: skip
OWN = ("--mask", "own_parts:Stripes,shift=1", "--target", "own_parts:Means", "--loss", "own_parts:huber,delta=0.5")


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch):
    monkeypatch.setattr(parts, "_said", {})


@pytest.fixture(scope="module")
def trained(maekit_here, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "run"
    done = maekit_here("pretrain", "vit-tiny", *RUN, *OWN, "--out", folder, "--json")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), done.stderr


def test_they_are_kept_by_name_in_config_and_weights(trained):
    folder, _, _ = trained
    config = json.loads((folder / "config.json").read_text())["config"]
    assert config["mask"]["kind"] == "own_parts:Stripes,shift=1"
    assert config["target"] == {"kind": "own_parts:Means", "loss": "own_parts:huber,delta=0.5"}
    parts.say(*OWN[1::2])
    model = maekit.load(folder)
    assert isinstance(model.objective.target, own_parts.Means)
    assert model.decoder.head[1].out_features == 1


def test_validation_is_by_them(trained):
    folder, said, _ = trained
    model = maekit.load(folder, WeightsOptions(parts=OWN[1::2]))
    source = open_source("digits:test")
    indices = evenly_spread(len(source), 40)
    batches = seen_by(model, source, bad=any_unreadable(source), batch_size=64, workers=0, indices=indices)
    batch = next(iter(batches))
    images = model.standardise(batch.images)
    masked = own_parts.Stripes(model.grid, 0.75, shift=1).draw(keys_tensor(0, batch.indices))
    with torch.no_grad():
        predicted = model(images, masked)
    means = take_patches(images, model.patch, predicted.index).mean(dim=2, keepdim=True)
    assert said["val_loss"] == pytest.approx(float(own_parts.huber(predicted.patches, means, 0.5)), rel=1e-5)


def test_a_report_leaves_out_what_cannot_be_painted(trained):
    folder, _, log = trained
    assert (folder / "report.html").exists()
    assert not (folder / "pictures").exists()
    assert "no picture of reconstructions: this model predicts own_parts:Means, which has no method `paint`" in log


def test_its_encoder_is_used_without_them(trained, maekit_command, tmp_path):
    folder, _, _ = trained
    out = tmp_path / "features.npz"
    done = maekit_command("embed", "--weights", folder, "--data", "digits:test", "--out", out, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert np.load(out)["vector"].shape == (360, 32)
    seen = json.loads(maekit_command("inspect", folder, "--json").stdout)
    assert seen["can"] == ["embed"]
    assert "--parts own_parts:Means own_parts:huber,delta=0.5 own_parts" in seen["cannot"]["reconstruct"]


def test_nothing_is_imported_because_of_a_file(trained):
    folder, _, _ = trained
    with pytest.raises(UsageError, match=r"own_parts:Stripes: is named by a file alone"):
        maekit.load(folder)
    assert maekit.load(folder, decoder=False).encoder is not None


def test_painted_targets_have_their_picture(maekit_here, tmp_path):
    folder, picture = tmp_path / "run", tmp_path / "picture.png"
    own = ("--target", "own_parts:Flat,gain=1.0")
    done = maekit_here("pretrain", "vit-tiny", *RUN, *own, "--out", folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "pictures" / "reconstruction.png").exists()
    words = ("reconstruct", "--weights", folder, "--data", "digits:test", "--out", picture, "--device", "cpu")
    parts._said.clear()
    refused = maekit_here(*words)
    assert refused.returncode == 2
    assert "say --parts own_parts:Flat" in refused.stderr
    assert maekit_here(*words, "--parts", "own_parts:Flat").returncode == 0
    model = maekit.load(folder)  # said by now
    images = torch.rand(1, 1, 32, 32)
    masked = model.objective.mask.draw(keys_tensor(0, torch.arange(1)))
    painted = maekit.reconstruct(model, images, masked)
    hidden = take_patches(painted, model.patch, model(model.standardise(images), masked).index)
    assert float(hidden.std(dim=2).max()) < 1e-4
    assert float(hidden.std()) > 1e-4


def test_a_frozen_network_is_no_part_of_the_weights(maekit_here, tmp_path):
    folder = tmp_path / "run"
    done = maekit_here("pretrain", "vit-tiny", *RUN, "--target", "own_parts:Teacher,width=24", "--out", folder)
    assert done.returncode == 0, done.stderr
    model = maekit.load(folder)
    assert not [name for name in model.state_dict() if "layer" in name]
    assert model.to(torch.float64).objective.target.layer.weight.dtype == torch.float64
    assert model.objective.target.width == 24


def test_a_run_goes_on_and_another_target_starts_its_decoder_anew(trained, maekit_here, tmp_path):
    folder, _, _ = trained
    words = (*RUN, "--weights", folder, "--out", tmp_path / "next")
    done = maekit_here("pretrain", "vit-tiny", *words)
    assert done.returncode == 0, done.stderr
    assert "predicts another target, own_parts:Means; the decoder starts from nothing" in done.stderr
    again = maekit_here("pretrain", folder / "config.json", *RUN[:4], "--out", tmp_path / "again", "--device", "cpu")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (("--mask", "own_parts:Forgetful"), "draws other masks for the same keys, so no run could be resumed"),
        (("--mask", "own_parts:Means"), "own_parts:Means: cannot be made (TypeError"),
        (("--target", "own_parts:Misshapen"), "makes torch.float32 [2, 3, 1] for 3 patches of 2 images"),
        (("--target", "own_parts:huber"), "own_parts:huber: cannot be made (TypeError"),
        (("--loss", "own_parts:not_a_number"), "loss own_parts:not_a_number: gives [2, 3]; it has to be one number"),
        (("--augment", "own_parts:crop"), "augment own_parts:crop: made torch.uint8 [1, 31, 32] of an image that is"),
        (("--mask", "blok"), "mask.kind: should be random, block, grid, one_in_2x2, or one of your own"),
        (("--target", "nowhere:Hog"), "target nowhere:Hog: there is no module nowhere"),
    ],
)  # fmt: skip
def test_parts_that_will_not_do_are_refused_before_anything_is_written(own, words, maekit_here, tmp_path):
    done = maekit_here("pretrain", "vit-tiny", *RUN, *own, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_swin_takes_no_mask_of_the_users(maekit_here, tmp_path):
    words = ("--data", "digits:train", "--steps", "1", "--mask", "own_parts:Stripes", "--out", tmp_path / "run")
    done = maekit_here("pretrain", "swin-tiny", *words, "--device", "cpu")
    assert done.returncode == 1
    assert "mask.kind own_parts:Stripes: swin_tiny_patch4_window7_224 takes one_in_2x2" in done.stderr


def test_an_augmentation_is_the_last_step_and_seeded():
    from maekit.config import AugmentConfig
    from maekit.data.transforms import TrainTransform

    plain = AugmentConfig(crop="none", flip=0)
    image = torch.arange(64, dtype=torch.uint8).view(1, 8, 8)
    inverted = TrainTransform(AugmentConfig(crop="none", flip=0, own="own_parts:invert"), (8, 8))
    assert inverted(image, 0, 0, 0, 0).equal(255 - TrainTransform(plain, (8, 8))(image, 0, 0, 0, 0))


def test_a_source_of_the_users_is_trained_on(maekit_here, tmp_path):
    words = ("--data", "own_parts:Noise,seed=3", *SIZES, "--model.channels", "1", "--steps", "2", "--batch-size", "4")
    done = maekit_here("pretrain", "vit-tiny", *words, "--workers", "0", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["source"] == "own_parts:Noise,seed=3"
    refused = maekit_here("data", "own_parts:Bare")
    assert refused.returncode == 1
    assert (
        maekit_here("data", "digit:train")
        .stderr.splitlines()[-1]
        .startswith(
            "maekit: digit:train: no such file or folder, and source digit:train: there is no module digit, in "
        )
    )
    assert "own_parts:Bare: a source has to have path, label, read, fingerprint, classes" in refused.stderr


def test_what_weights_name_is_said_before_a_verb_is(maekit_here, trained):
    folder, _, _ = trained
    seen = json.loads(maekit_here("inspect", "--parts", *OWN[1::2], "--json", folder).stdout)
    assert seen["can"] == ["embed"]
    assert seen["cannot"]["reconstruct"] == "its target, own_parts:Means, has no method paint"
    assert maekit.load(folder, parts=OWN[1::2]).mask.kind == OWN[1]


def test_words_after_parts_and_kinds_are_the_sources(maekit_here, trained):
    folder, _, _ = trained
    done = maekit_here(
        "probe", "--weights", folder, "--kinds", "knn", "digits:train", "--val", "digits:test", "--device", "cpu"
    )
    assert done.returncode == 0, done.stderr


def test_a_branch_never_lies_in_what_is_emptied(trained, maekit_here):
    folder, _, _ = trained
    checkpoint = next((folder / "checkpoints").iterdir())
    words = (*RUN, *OWN, "--branch", checkpoint, "--out", folder, "--overwrite")
    done = maekit_here("pretrain", "vit-tiny", *words)
    assert done.returncode == 2
    assert "lies in --out, which --overwrite empties" in done.stderr
    assert checkpoint.exists()


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ("own_parts:Upside", "target own_parts:Upside: fails on images of noise (TypeError"),
        ("own_parts:Nothing", "target own_parts:Nothing: has no `width`"),
    ],
)
def test_a_target_is_painted_and_measured_before_the_run(own, words, maekit_here, tmp_path):
    done = maekit_here("pretrain", "vit-tiny", *RUN, "--target", own, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert words in done.stderr
