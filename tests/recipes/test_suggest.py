"""The suggested command fits images, machine and hours, says why, and runs."""

import json
import logging
import shlex
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import maekit
from maekit import presets
from maekit.data.sources import open_source
from maekit.errors import DataError, Stopped, TrainingError
from maekit.recipes import suggest

RATE = 100.0


@pytest.fixture
def timed(monkeypatch):
    """A machine that trains on a hundred images a second; what it was asked to time."""
    asked = []

    def passes(config, micro, count):
        asked.append((config, micro, count))
        return RATE, 0.0, 0.0

    monkeypatch.setattr(suggest, "timed_passes", passes)
    return asked


def pictures(folder, make, count=6):
    """Files by a function of a generator."""
    folder.mkdir()
    for number in range(count):
        made = make(np.random.default_rng(number))
        if isinstance(made, np.ndarray) and made.ndim == 3 and made.shape[2] not in (1, 3):
            np.save(folder / f"{number}.npy", made)
        else:
            Image.fromarray(made).save(folder / f"{number}.png")
    return folder


def words_for(source, **options):
    """The suggested words after `maekit pretrain`, and the answer."""
    answer = maekit.suggest(source, device="cpu", **options)
    words = shlex.split(answer.command)
    assert words[:2] == ["maekit", "pretrain"]
    return words[2:], answer


def value(words, name):
    return words[words.index(name) + 1] if name in words else None


def test_the_command_runs_as_it_was_timed(maekit_here, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(suggest, "_PASSES", 4)
    done = maekit_here("suggest", photos, "--hours", "0.01", "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert f"{answer['command']}\n\nby a look at 12 of 12 images" in done.stderr  # where standard output is a program's
    assert list(tmp_path.iterdir()) == []
    assert logging.root.manager.disable == logging.NOTSET
    words = shlex.split(answer["command"])[1:]
    assert int(value(words, "--steps")) == answer["steps"]
    assert answer["seconds"] == pytest.approx(answer["steps"] * 8 / answer["images_per_second"])
    assert answer["seconds"] <= 36
    words[words.index("--steps") + 1] = "2"
    ran = maekit_here(*words)
    assert ran.returncode == 0, ran.stderr
    config = json.loads((tmp_path / "runs" / photos.name / "config.json").read_text())["config"]
    assert config["schedule"]["batch_size"] == answer["batch_size"] == 8
    assert config["model"]["image_size"] == int(value(words, "--image-size"))
    assert all(reason["because"] and reason["basis"] for reason in answer["reasons"])
    again = json.loads(maekit_here("suggest", photos, "--device", "cpu", "--json").stdout)
    assert "--out" not in again["command"]  # that folder holds a run


def test_looks_at_held_out_images_count_by_how_many_there_will_be(monkeypatch):
    """A clock that stands still but while held-out images are looked at: a second for each image."""
    evaluate, now = suggest.pretrain.PretrainTask.evaluate, [0.0]

    def slow(task):
        now[0] += 200 + 200 + 200  # held-out images twice, and those that they are compared with
        return evaluate(task)

    monkeypatch.setattr(suggest.pretrain.PretrainTask, "evaluate", slow)
    monkeypatch.setattr(suggest, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    config = suggest._config("digits", [suggest.Choice({"data": "digits:train", "device": "cpu"})])
    monkeypatch.setattr(suggest.metrics, "read", lambda _: [{"images_per_second": RATE}] * 4)
    rate, looks, least = suggest.timed_passes(config, 8, 4)
    assert rate == pytest.approx(RATE)
    assert looks == pytest.approx(20 * (360 + 360 + 1437))
    assert least == pytest.approx(20 * (360 + 360 + 1000))


def test_digits_have_their_preset(timed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, answer = words_for("digits:train")
    assert words == shlex.split(
        "digits --data digits:train --device cpu --batch-size 64 --steps 3818 --out runs/digits"
    )
    assert answer.seconds == pytest.approx(3818 * 64 / RATE)
    (config, micro, _), *_ = timed
    assert (config.name, micro) == ("digits", 64)


@pytest.mark.usefixtures("timed")
def test_it_keeps_to_the_hours_and_says_what_the_preset_wants(photos):
    words, answer = words_for(photos, hours=0.02)
    assert value(words, "--steps") == str(int(72 * RATE / 8))
    assert answer.seconds <= 72
    whole, all_of_it = words_for(photos)
    assert value(whole, "--steps") == "2000"
    wanted = 2000 * 8 / RATE / 3600
    shorter = words_for(photos, hours=wanted / 2)[1].reasons[-1]["because"]
    assert f"the preset's own 2,000 steps take --hours {wanted:.2g}" in shorter
    assert "--hours" not in all_of_it.reasons[-1]["because"]


def test_looks_are_part_of_the_hours(monkeypatch, photos):
    monkeypatch.setattr(suggest, "timed_passes", lambda *_: (RATE, 50.0, 36.0))
    words, answer = words_for(photos, hours=0.02)
    assert value(words, "--steps") == str(int(36 * RATE / 8))
    assert answer.seconds == pytest.approx(72)
    assert "36.0 s of it for looks at held-out images" in answer.reasons[-1]["because"]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda draw: draw.integers(0, 256, (90, 300, 3), dtype=np.uint8), "64 8 None None"),
        (lambda draw: draw.integers(0, 256, (28, 28), dtype=np.uint8), "28 4 1 None"),
        (lambda draw: draw.integers(0, 256, (5, 4, 3), dtype=np.uint8), "4 2 None None"),
        (lambda draw: draw.integers(0, 4096, (40, 40)).astype(np.uint16), "40 5 1 measured"),
        (lambda draw: draw.integers(0, 65536, (40, 40)).astype(np.uint16), "40 5 1 None"),
        (lambda draw: draw.random((12, 40, 40)).astype(np.float32), "40 5 12 None"),
        (lambda draw: 50 * draw.random((40, 40, 5)).astype(np.float32), "40 5 5 measured"),
    ],
    ids=["wide", "grey", "tiny", "12 bits", "16 bits", "bands", "beyond 1"],
)
@pytest.mark.usefixtures("timed")
def test_sizes_channels_and_values_decide(tmp_path, make, expected):
    words, _ = words_for(pictures(tmp_path / "images", make))
    names = ("--image-size", "--model.patch-size", "--model.channels", "--data.range")
    assert " ".join(str(value(words, name)) for name in names) == expected
    assert value(words, "--normalise") == "measured"


@pytest.mark.usefixtures("timed")
def test_many_images_hold_some_out_and_few_do_not(tmp_path, photos):
    few, _ = words_for(photos)
    many, answer = words_for(pictures(tmp_path / "many", lambda draw: draw.integers(0, 9, (8, 8), np.uint8), 200))
    assert "--val-split" not in few
    assert value(many, "--val-split") == "0.1"
    assert answer.epochs == pytest.approx(answer.steps * answer.batch_size / 180)


class _Of:
    """A source of so many images."""

    def __init__(self, count):
        self.count, self.text = count, "photos"

    def __len__(self):
        return self.count


@pytest.mark.parametrize(
    ("images", "device", "preset"),
    [
        (60, "cuda", "vit-tiny-small-data"),
        (1_000_000, "cpu", "vit-tiny-small-data"),
        (50_000, "cuda", "vit-small-crossmae"),
        (1_000_000, "cuda", "vit-base"),
    ],
)
def test_number_and_device_decide_the_preset(images, device, preset):
    name, *_ = suggest._preset(_Of(images), torch.device(device))
    assert name == preset
    side = {"smallest": 300, "median": 375.0, "largest": 500}
    look = replace(maekit.data("digits:train", images=2, channels=1, workers=0), sizes={"width": side, "height": side})
    config = suggest._config(name, list(suggest._of_images(look, 3, presets.PRETRAIN[name]())))
    assert config.model.image_hw == ((64, 64) if name == "vit-tiny-small-data" else (224, 224))
    assert config.model.patch_size == (8 if name == "vit-tiny-small-data" else 16)


def test_what_does_not_fit_into_memory_is_halved(photos, monkeypatch):
    micros = []

    def out_of_memory(_config, micro, _count):
        micros.append(micro)
        if micro > 2:
            raise TrainingError(f"out of memory with {micro} images")
        return RATE, 0.0, 0.0

    monkeypatch.setattr(suggest, "timed_passes", out_of_memory)
    words, _ = words_for(photos)
    assert micros == [8, 4, 2]
    assert value(words, "--micro-batch-size") == "2"
    assert value(words, "--batch-size") == "8"

    def never(_config, micro, _count):
        raise TrainingError(f"out of memory with {micro} images")

    monkeypatch.setattr(suggest, "timed_passes", never)
    with pytest.raises(TrainingError, match="out of memory with 1 images"):
        words_for(photos)


def test_stopped_while_it_times_is_no_run_to_go_on_with(maekit_here, photos, monkeypatch):
    def stopped(_, config):
        raise Stopped("stopped by SIGINT after saving step 2", config.run.out)

    monkeypatch.setattr(suggest.training, "run", stopped)
    done = maekit_here("suggest", photos, "--device", "cpu")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (130, "maekit: interrupted")
    assert logging.root.manager.disable == logging.NOTSET


def test_images_that_cannot_be_read_are_said_before_anything_is_timed(timed, tmp_path):
    (tmp_path / "broken.png").write_text("text")
    with pytest.raises(DataError, match="none of its 1 images can be read: not an image"):
        words_for(tmp_path)
    assert timed == []


def test_headers_tell_channels(tmp_path):
    import tifffile

    for number, bands in enumerate((1, 3, 7)):
        tifffile.imwrite(tmp_path / f"{number}.tif", np.zeros((bands, 9, 8), np.uint16), photometric="minisblack")
    source = open_source(str(tmp_path))
    assert [suggest._channels(source.read(index)) for index in range(3)] == [1, 3, 7]
    assert suggest._channels(np.zeros((8, 8, 2))) == 2
    assert suggest._channels(np.zeros((8, 8))) == 1
