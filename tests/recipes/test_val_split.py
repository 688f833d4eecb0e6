"""`--val-split`: part of the training images, held out, in every verb that judges."""

import json
from pathlib import Path

import pytest

import tiny

SHORT = ("--steps", "2", "--batch-size", "4", "--lr", "1e-3", "--workers", "0", "--device", "cpu")


@pytest.fixture(scope="module")
def pretrained(maekit_here, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict]:
    out = tmp_path_factory.mktemp("split") / "run"
    done = maekit_here(
        "pretrain", "vit-tiny", *tiny.SIZES, *SHORT, "--data", photos, "--val-split", "0.34", "--out", out, "--json"
    )
    assert done.returncode == 0, done.stderr
    return out, done.stderr, json.loads(done.stdout.splitlines()[-1])


def test_pretraining_holds_out_and_says_it(pretrained, photos: Path) -> None:
    out, said, answer = pretrained
    assert f"{photos}: 8 images are learned from, 4 are held out, by class and seed 0" in said
    assert answer["val_knn"] is not None
    assert answer["passed_over"] == {"images": {}, "beside": {}, "notes": []}
    config = json.loads((out / "config.json").read_text())
    assert config["config"]["validation"]["split"] == 0.34
    assert config["data"]["images"] == 8


def test_fine_tuning_and_probing_hold_out(pretrained, maekit_here, photos: Path, tmp_path: Path) -> None:
    words = ("--weights", pretrained[0], "--data", photos, "--val-split", "0.34", "--json")
    tuned = maekit_here("finetune", "vit-tiny", *words, *SHORT, "--out", tmp_path / "tuned")
    assert tuned.returncode == 0, tuned.stderr
    assert json.loads(tuned.stdout.splitlines()[-1])["val_top1"] in (0, 0.25, 0.5, 0.75, 1)
    probed = maekit_here("probe", *words, "--kinds", "knn", "--device", "cpu", "--workers", "0")
    assert probed.returncode == 0, probed.stderr
    answer = json.loads(probed.stdout.splitlines()[-1])
    assert (answer["train_images"], answer["val_images"]) == (8, 4)
    assert "training images too" not in tuned.stderr + probed.stderr


def test_it_takes_the_place_of_a_presets_own_source(maekit_here, tmp_path: Path) -> None:
    done = maekit_here("scratch", "digits", "--val-split", "0.2", *SHORT, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"]["source"] == "digits:train without 0.2 of it"
    assert config["config"]["validation"]["source"] == ""


def test_a_saved_configs_share_gives_way_to_images_that_are_named(
    pretrained, maekit_here, photos: Path, tmp_path: Path
) -> None:
    words = ("--val", photos / "rough", "--out", tmp_path / "again", "--steps", "1")
    done = maekit_here("pretrain", pretrained[0] / "config.json", *words)
    assert done.returncode == 0, done.stderr
    assert "are held out" not in done.stderr
    assert "6 of its 6 images are training images too" in done.stderr


def test_classes_that_are_matched_by_number_are_said_in_pretraining_too(
    maekit_here, photos: Path, tmp_path: Path
) -> None:
    listed = tmp_path / "val.csv"
    listed.write_text("".join(f"{file},{int(file.parent.name == 'smooth')}\n" for file in sorted(photos.glob("*/*"))))
    out = tmp_path / "run"
    done = maekit_here("pretrain", "vit-tiny", *tiny.SIZES, *SHORT, "--data", photos, "--val", listed, "--out", out)
    assert "its labels are taken as the numbers of those of" in done.stderr


@pytest.mark.parametrize("verb", ["pretrain", "finetune", "scratch", "probe"])
def test_beside_a_source_it_is_refused(maekit_here, verb: str, tmp_path: Path) -> None:
    preset = () if verb == "probe" else ("vit-tiny",)
    weights = ("--weights", tmp_path / "w.safetensors") if verb in ("finetune", "probe") else ()
    done = maekit_here(verb, *preset, *weights, "--data", "digits:train", "--val", "digits:test", "--val-split", "0.1")
    assert done.returncode == 2
    assert "--val names the images to judge by; take one of them" in done.stderr


def test_neither_is_refused_with_both_named(maekit_here, photos: Path) -> None:
    done = maekit_here("scratch", "vit-tiny", "--data", photos)
    assert done.returncode == 2
    assert "--val is missing" in done.stderr
    assert "--val-split 0.1" in done.stderr


def test_images_that_are_learned_from_and_judged_by_are_said(maekit_here, photos: Path, tmp_path: Path) -> None:
    done = maekit_here(
        "scratch",
        "vit-tiny",
        "--image-size",
        "32",
        "--model.depth",
        "1",
        "--model.width",
        "24",
        "--model.heads",
        "2",
        "--data",
        photos,
        "--val",
        photos,
        *SHORT,
        "--out",
        tmp_path / "run",
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"{photos}: 12 of its 12 images are training images too (the same files)") == 1
