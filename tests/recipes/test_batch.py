"""The batch of a run that was not told one: it follows the images and the device, and says why."""

import json
from dataclasses import replace

import pytest

import tiny
from maekit import presets
from maekit.recipes import pretrain

WORDS = (
    "pretrain", "vit-tiny", *tiny.SIZES, "--steps", "2", "--base-lr", "0.1", "--workers", "0", "--run.no-tensorboard"
)  # fmt: skip

GPU, CPU = False, True


@pytest.mark.parametrize(
    ("verb", "name", "images", "on_cpu", "expected"),
    [
        ("pretrain", "vit-small", 1_281_167, GPU, 4096),
        ("pretrain", "vit-small", 200_000, GPU, 4096),
        ("pretrain", "vit-small", 1_281_167, CPU, 64),
        ("pretrain", "vit-small", 50_000, GPU, 1024),
        ("pretrain", "vit-small", 2_000, GPU, 64),
        ("pretrain", "vit-small", 100, GPU, 64),
        ("pretrain", "vit-small", 63, GPU, 32),
        ("pretrain", "vit-small", 63, CPU, 32),
        ("pretrain", "vit-small", 1, CPU, 1),
        ("pretrain", "cifar", 50_000, GPU, 4096),
        ("pretrain", "cifar", 5_000, GPU, 256),
        ("pretrain", "digits", 1_437, CPU, 64),
        ("finetune", "vit-base", 1_281_167, GPU, 1024),
        ("finetune", "vit-base", 3_000, GPU, 64),
        ("finetune", "digits", 50, CPU, 50),
        ("scratch", "vit-base", 1_281_167, GPU, 4096),
    ],
)
def test_the_recipes_batch_is_for_as_many_images_as_it_is_made_for(verb, name, images, on_cpu, expected):
    schedule = getattr(presets, verb.upper())[name]().schedule
    assert schedule.fitting_batch(images, 1, on_cpu=on_cpu) == expected


@pytest.mark.parametrize("images", [1, 2, 3, 63, 1000, 1_281_167])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("micro", [None, 1, 3, 16])
def test_a_chosen_batch_divides_over_devices_and_passes(images, world, micro):
    schedule = replace(presets.PRETRAIN["vit-tiny"]().schedule, micro_batch_size=micro)
    chosen = replace(schedule, batch_size=schedule.fitting_batch(images, world, on_cpu=True))
    assert chosen.batch_size <= max(images, world * (micro or 1))
    assert chosen.micro_batch(world) * world <= chosen.batch_size


def test_every_presets_batch_is_that_of_a_recipe_and_open():
    every = {**presets.PRETRAIN, **presets.FINETUNE, **presets.SCRATCH}
    assert {name for name in every if every[name]().schedule.batch_size is not None} == set()


def ran(folder):
    return json.loads((folder / "config.json").read_text())


def test_twelve_images_are_not_asked_for_4096_at_a_time(maekit_here, photos, tmp_path):
    done = maekit_here(*WORDS, "--data", photos, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    batch = next(line for line in done.stderr.splitlines() if line.lstrip().startswith("batch "))
    assert " ".join(batch.split()) == (
        "batch 8, not the recipe's 4,096: here are 12 images, not the 1,281,167 it is made for, and a CPU is no faster "
        "in larger ones; give --batch-size 4096 to have it"
    )
    said = ran(tmp_path / "run")
    assert said["config"]["schedule"]["batch_size"] == 8
    assert said["computed"]["lr"] == pytest.approx(0.1 * 8 / 256)
    assert "is more than the" not in done.stderr
    assert "12 images are few to start from nothing with a recipe for 1,281,167: vit-tiny-small-data" in done.stderr


def test_the_preset_for_few_images_is_at_home_with_them(maekit_here, photos, tmp_path):
    words = ("pretrain", "vit-tiny-small-data", *tiny.SIZES, "--data", photos, "--out", tmp_path / "run")
    done = maekit_here(*words, "--steps", "2", "--workers", "0")
    assert done.returncode == 0, done.stderr
    assert "are few to start" not in done.stderr
    assert ran(tmp_path / "run")["config"]["schedule"]["batch_size"] == 8


def test_a_batch_that_was_given_is_taken(maekit_here, photos, tmp_path):
    done = maekit_here(*WORDS, "--data", photos, "--out", tmp_path / "run", "--batch-size", "16")
    assert "recipe's" not in done.stderr
    assert "a batch of 16 is more than the 12 images" in done.stderr
    saved = tmp_path / "run" / "config.json"
    again = maekit_here("pretrain", saved, "--out", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    assert ran(tmp_path / "again")["config"]["schedule"]["batch_size"] == 16
    written = tmp_path / "mine.yaml"
    written.write_text(json.dumps(ran(tmp_path / "run")["config"]).replace('"batch_size": 16', '"batch_size": 4'))
    assert maekit_here("pretrain", written, "--out", tmp_path / "mine").returncode == 0
    assert ran(tmp_path / "mine")["config"]["schedule"]["batch_size"] == 4


def test_the_same_from_python(photos, tmp_path):
    for given, expected in ((None, 8), (16, 16)):
        config = tiny.shrunk("vit-tiny")
        config = replace(
            config,
            data=replace(config.data, source=str(photos), workers=0),
            schedule=replace(config.schedule, steps=2, batch_size=given),
            run=replace(config.run, out=str(tmp_path / f"run-{given}"), device="cpu", tensorboard=False),
        )
        pretrain.run(config)
        assert ran(tmp_path / f"run-{given}")["config"]["schedule"]["batch_size"] == expected


def test_a_resumed_run_keeps_the_batch_that_it_began_with(maekit_here, photos, tmp_path):
    words = (*WORDS, "--data", photos, "--out", tmp_path / "run")
    assert maekit_here(*words, "--batch-size", "4").returncode == 0
    done = maekit_here(*words, "--resume")  # as where another device would have chosen another
    assert done.returncode == 0, done.stderr
    assert "the run is complete" in done.stderr
    assert ran(tmp_path / "run")["config"]["schedule"]["batch_size"] == 4
