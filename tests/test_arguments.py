"""What verbs take as functions: the errors of the command line, its options as keywords, objects in place of text."""

import dataclasses
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset

import maekit
from maekit import presets
from maekit.config import PretrainConfig

TINY = {"device": "cpu", "workers": 0, "steps": 2}

# Errors

WRONG = {
    "an option misspelt": (
        "pretrain vit-tiny --data d --mask-ration 0.5", lambda: maekit.pretrain("vit-tiny", data="d", mask_ration=0.5)),
    "one of other programs": (
        "pretrain vit-tiny --data d --accum-iter 4", lambda: maekit.pretrain("vit-tiny", data="d", accum_iter=4)),
    "one of another verb": (
        "pretrain vit-tiny --data d --mixup 0.8", lambda: maekit.pretrain("vit-tiny", data="d", mixup=0.8)),
    "a dotted one misspelt": (
        "pretrain vit-tiny --data d --model.decoder.dept 3",
        lambda: maekit.pretrain("vit-tiny", data="d", options={"model.decoder.dept": 3})),
    "out of range": (
        "pretrain vit-tiny --data d --mask-ratio 1.5", lambda: maekit.pretrain("vit-tiny", data="d", mask_ratio=1.5)),
    "vain": (
        "pretrain vit-tiny --data d --val v --val-split 0.1",
        lambda: maekit.pretrain("vit-tiny", data="d", val="v", val_split=0.1)),
    "no data": ("pretrain vit-tiny", lambda: maekit.pretrain("vit-tiny")),
    "no weights": (
        "finetune vit-tiny --data d --val d", lambda: maekit.finetune("vit-tiny", data="d", val="d")),
    "no judge": (
        "scratch vit-tiny --data d", lambda: maekit.scratch("vit-tiny", data="d")),
    "a preset misspelt": ("pretrain vit-tny --data d", lambda: maekit.pretrain("vit-tny", data="d")),
    "images and their number": (
        "plan vit-tiny --data d --images 3", lambda: maekit.plan("vit-tiny", data="d", images=3)),
    "no images to plan for": ("plan vit-tiny", lambda: maekit.plan("vit-tiny")),
    "a batch that GPUs do not divide": (
        "plan vit-tiny --images 99999999 --gpus 3", lambda: maekit.plan("vit-tiny", images=99999999, gpus=3)),
    "no step": (
        "pretrain vit-tiny --data d --steps 0", lambda: maekit.pretrain("vit-tiny", data="d", steps=0)),
    "a length twice": (
        "pretrain vit-tiny --data d --steps 5 --epochs 2",
        lambda: maekit.pretrain("vit-tiny", data="d", steps=5, epochs=2)),
    "a rate twice": (
        "finetune vit-tiny --data d --weights w --lr 1 --base-lr 2",
        lambda: maekit.finetune("vit-tiny", data="d", weights="w", lr=1, base_lr=2)),
    "no file to write": ("embed d --weights w", lambda: maekit.embed("w", "d")),
    "a file of another kind": ("embed d --weights w --out f.csv", lambda: maekit.embed("w", "d", out="f.csv")),
    "a flat option misspelt": (
        "embed d --weights w --out f.npz --bloks 2", lambda: maekit.embed("w", "d", out="f.npz", bloks=2)),
    "a flat one that is vain": (
        "convert w --to timm --out o --resample-positions",
        lambda: maekit.convert("w", to="timm", out="o", resample_positions=True)),
    "no such source": ("data nowhere", lambda: maekit.data("nowhere")),
    "no such weights": ("inspect nowhere", lambda: maekit.inspect("nowhere")),
    "no judge of a probe": ("probe d --weights w", lambda: maekit.probe("w", "d")),
    "a config that is none": ("inspect w --config vit-tny", lambda: maekit.inspect("w", config="vit-tny")),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG)
@pytest.mark.usefixtures("here")
def test_a_mistake_is_told_in_the_commands_line(mistake, maekit_here):
    words, call = WRONG[mistake]
    done = maekit_here(*words.split())
    with pytest.raises(maekit.MaekitError) as raised:
        call()
    assert f"maekit: {' '.join(str(raised.value).split())}\n" == done.stderr
    assert done.returncode == raised.value.exit_code


def test_what_python_alone_can_get_wrong_is_one_line_too():
    with pytest.raises(maekit.UsageError, match="pretrain: takes a preset's name, a path or a PretrainConfig"):
        maekit.pretrain(3)
    with pytest.raises(maekit.UsageError, match="finetune: takes a preset's name, a path or a ClassifyConfig"):
        maekit.finetune(presets.PRETRAIN["digits"]())
    with pytest.raises(maekit.UsageError, match="blocks: should be greater than or equal to 1, got 0"):
        maekit.embed("w", "d", out="f.npz", blocks=0)
    with pytest.raises(maekit.UsageError, match="weights: is given twice, by its place and by its name"):
        maekit.embed("w", "d", out="f.npz", weights="v")
    with pytest.raises(maekit.UsageError, match="source: should be text, a path, or a data set with a length"):
        maekit.data(3)
    with pytest.raises(TypeError, match="too many positional arguments"):
        maekit.embed("w", "d", "f.npz")


def test_what_was_found_all_the_same_is_in_the_error(here, maekit_here):
    (here / "bad").mkdir()
    (here / "bad" / "one.png").write_text("no picture")
    with pytest.raises(maekit.DataError) as raised:
        maekit.data("bad", workers=0)
    assert raised.value.answer.images == 1
    assert maekit_here("data", "bad", "--workers", "0").stdout.rstrip() == str(raised.value.answer)


# Options


def configs(monkeypatch):
    """The configs that trainings get, which then do nothing."""
    taken = []
    answer = {"run": None, "steps": 0, "unreadable": 0, "passed_over": {}, "loss": 0.0}
    for module, name in (("pretrain", "run"), ("classify", "finetune"), ("classify", "scratch")):
        recipe = importlib.import_module(f"maekit.recipes.{module}")
        monkeypatch.setattr(recipe, name, lambda config: taken.append(config) or answer)
    return taken


def test_keywords_and_dotted_options_are_those_of_words(monkeypatch, maekit_here):
    taken = configs(monkeypatch)
    maekit.pretrain(
        "vit-tiny", data=Path("photos"), epochs=3, lr=1e-3, mask_ratio=0.5, image_size=(64, 96), val_split=0.25,
        normalise="given", mean=[0.5, 0.4, 0.3], std=(0.2, 0.2, 0.2), resume=True, out=Path("runs/a"), workers=None,
        options={"model.decoder.depth": 4, "data.range": (0, 4095), "run.tensorboard": False},
    )  # fmt: skip
    words = (
        "pretrain vit-tiny photos --epochs 3 --lr 1e-3 --mask-ratio 0.5 --image-size 64x96 --val-split 0.25 "
        "--normalise given --mean 0.5 0.4 0.3 --std 0.2 0.2 0.2 --resume --out runs/a --workers None "
        "--model.decoder.depth 4 --data.range 0 4095 --run.no-tensorboard"
    )
    done = maekit_here(*words.split())
    assert done.returncode == 0, done.stderr
    assert taken[0] == taken[1]
    assert type(taken[0].data.source) is str


def test_naming_the_epochs_clears_the_steps(monkeypatch):
    taken = configs(monkeypatch)
    maekit.pretrain("digits", epochs=3)
    maekit.scratch("digits", val_split=0.5)
    assert (taken[0].schedule.epochs, taken[0].schedule.steps) == (3, None)
    assert (taken[1].validation.source, taken[1].validation.split) == ("", 0.5)


def test_a_config_and_a_file_are_presets_as_well(monkeypatch, here):
    taken = configs(monkeypatch)
    config = presets.PRETRAIN["digits"]()
    maekit.pretrain(config)
    assert taken[0] is config
    maekit.pretrain(here / "runs/digits", seed=3)
    assert (taken[1].run.seed, taken[1].schedule.steps) == (3, 2)
    maekit.finetune("digits", weights="w", image_size=16)
    assert taken[2].classifier.image_size == 16


def test_classes_and_functions_stand_for_their_names(monkeypatch):
    from own_parts import Stripes, huber

    taken = configs(monkeypatch)
    maekit.pretrain("digits", mask=Stripes, loss=huber, parts=[Stripes])
    assert taken[0].mask.kind == "own_parts:Stripes"
    assert taken[0].target.loss == "own_parts:huber"
    assert taken[0].run.parts == ("own_parts:Stripes",)
    with pytest.raises(maekit.UsageError, match="hand over a class or function that stands in a module"):
        maekit.pretrain("digits", mask=lambda *_: None)


# Objects in place of text


class Digits(Dataset):
    """Some digits as float images, without a list of their labels."""

    def __init__(self, count):
        self.source = importlib.import_module("maekit.data.sources").find_source("digits:train")
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        return torch.from_numpy(self.source.read(index)).float()[None] / 255, self.source.label(index)


def test_a_data_set_is_trained_on_resumed_and_written_down(here):
    shown, small = Digits(60), {"batch_size": 12, "val_split": 0.2, **TINY, "options": {"run.checkpoint_every": 1}}
    run = maekit.pretrain("digits", data=shown, out="runs/a", **small)
    ran = json.loads((here / "runs/a/config.json").read_text())
    assert ran["config"]["data"]["source"] == "<Digits: 60 images>"
    assert ran["data"]["classes"] == 10
    assert run.record["val_knn"] >= 0
    with pytest.raises(maekit.DataError, match="<Digits: 60 images>: was an object of the program that wrote this"):
        maekit.pretrain(here / "runs/a", out="runs/b")
    by_file = maekit.pretrain(here / "runs/a", data=shown, out="runs/b")
    assert by_file.loss == run.loss
    assert maekit.pretrain("digits", data=shown, out="runs/a", resume=True, **small).steps == 2
    with pytest.raises(maekit.RunError, match="this is not the run that was interrupted: the images"):
        maekit.pretrain("digits", data=Subset(shown, range(50)), out="runs/a", resume=True, **small)


@pytest.mark.usefixtures("here")
def test_workers_read_a_data_set():
    said = [maekit.embed("runs/digits", Digits(20), out=f"{n}.npz", batch_size=4, workers=n).images for n in (0, 2)]
    assert said == [20, 20]
    assert np.array_equal(np.load("0.npz")["vector"], np.load("2.npz")["vector"])


def test_a_run_is_its_weights(here):
    run = maekit.pretrain("digits", out="runs/again", **TINY)
    assert maekit.inspect(run).as_dict() == maekit.inspect("runs/again").as_dict()
    assert maekit.load(run).config == maekit.load("runs/again").config
    tuned = maekit.finetune("digits", weights=run, per_class=2, out="runs/of-run", **TINY)
    assert json.loads((here / "runs/of-run/config.json").read_text())["config"]["weights"] == "runs/again"
    assert tuned.steps == 2


def test_a_model_is_its_weights(here):
    model, before = maekit.load("runs/digits"), maekit.inspect("runs/digits").as_dict()
    model.train()
    found = maekit.inspect(model, hash=True).as_dict()
    assert found == {**before, "file": "<MaskedAutoencoder>"}
    maekit.embed(model, "digits:test", out="a.npz")
    maekit.embed("runs/digits", "digits:test", out="b.npz")
    assert np.array_equal(np.load("a.npz")["vector"], np.load("b.npz")["vector"])
    tuned = maekit.finetune("digits", weights=model, per_class=2, out="runs/of-model", **TINY)
    again = maekit.finetune("digits", weights="runs/digits", per_class=2, out="runs/of-file", **TINY)
    assert tuned.record["loss"] == again.record["loss"]
    assert json.loads((here / "runs/of-model/config.json").read_text())["config"]["weights"] == "<MaskedAutoencoder>"
    classifier = maekit.load("runs/of-model")
    assert maekit.evaluate(classifier, "digits:test").top1 == maekit.evaluate("runs/of-model", "digits:test").top1
    with pytest.raises(maekit.WeightsError, match="<Classifier>: holds a classifier, which has no decoder"):
        maekit.reconstruct(classifier, "digits:test", out="r.png")
    assert maekit.convert(model, to="timm", out="timm").part == "encoder"
    assert maekit.probe(model, "digits:train", val="digits:test", kinds=["knn"], workers=0).probes["knn"]["top1"] >= 0
    assert model.training


def test_images_in_memory_are_seen_as_files_are(here):
    files = [here / f"{index}.png" for index in range(3)]
    for index, file in enumerate(files):
        Image.fromarray(Digits(3).source.read(index)).save(file)
    pictures = [Image.open(file) for file in files]
    of_files, of_pictures = (maekit.classify("runs/tuned", shown, top=1) for shown in (files, pictures))
    assert [image["top"] for image in of_files.images] == [image["top"] for image in of_pictures.images]
    assert maekit.reconstruct("runs/digits", pictures, out="r.png", rows=2).images == 2
    assert maekit.data(pictures, channels=1, workers=0).images == 3


def test_a_config_object_survives_a_round_trip_of_types():
    config: PretrainConfig = presets.PRETRAIN["digits"]()
    given = dataclasses.replace(config, data=dataclasses.replace(config.data, source=Digits(3)))
    assert given.data.source == "<Digits: 3 images>"
    assert dataclasses.replace(given, name="other").data.source.object is given.data.source.object
