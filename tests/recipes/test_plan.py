"""A plan says what the run would be, what it would hold, and what makes it fit; and that it is an estimate."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import maekit
import tiny
from maekit import presets
from maekit.config import PlanConfig
from maekit.engine import footprint
from maekit.engine.schedule import Plan
from maekit.models import mae
from maekit.models.cost import forward_gflop, parameter_count
from maekit.recipes import suggest

MILLION = 1_000_000
AGAIN, FSDP, PASSES = "--run.checkpoint-activations", "--run.parallel fsdp", "{} passes a step"
SLOWER, SENT = "about a third more time", "weights are sent block by block"


@pytest.fixture
def no_count(monkeypatch):
    """Memory that is not counted, which takes seconds: a GB of weights, and one for each image, or half of it."""

    def images(make, batch):
        return len(batch) * 10**9 // (2 if make.__self__.recomputes else 1)

    def whole(make, batch, **_):
        return footprint.Footprint(10**9, 0, 0, images(make, batch))

    def divided(make, batch, *, processes, **_):
        return footprint.Footprint(10**9 // processes, 0, 0, images(make, batch))

    monkeypatch.setattr(footprint, "whole", whole)
    monkeypatch.setattr(footprint, "divided", divided)


def of_asked(said):
    return next(way for way in said.memory if way["asked"])


def test_it_is_the_run_that_pretrain_would_do(maekit_here, tmp_path):
    words = ["--data", "digits:train", "--steps", "3", "--batch-size", "32", "--val-split", "0.1"]
    said = maekit.plan("digits", data="digits:train", steps=3, batch_size=32, val_split=0.1, precision="fp32")
    done = maekit_here("pretrain", "digits", *words, "--device", "cpu", "--workers", "0", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    ran = json.loads((tmp_path / "run" / "config.json").read_text())
    assert said.images == pytest.approx(ran["data"]["images"], abs=5)  # drawn class by class there
    for name in ("steps", "warmup_steps", "lr", "base_lr", "accumulation"):
        assert getattr(said, name) == ran["computed"][name], name
    assert said.micro_batch_size == ran["computed"]["micro_batch"]
    model = maekit.load(tmp_path / "run")
    assert said.parameters == parameter_count(model)
    assert said.encoder_parameters == parameter_count(model.encoder)
    assert said.gflop == pytest.approx(3 * forward_gflop(model))
    assert said.exaflop == pytest.approx(said.gflop * 3 * 32 / 1e9)
    saved = sum(path.stat().st_size for path in (tmp_path / "run" / "checkpoints" / "step-3").glob("*.safetensors"))
    assert said.checkpoint_gb == pytest.approx(saved / 1e9, rel=0.05)
    assert f"{said.gflop:.3g} GFLOP in training an image" in str(said)
    assert f"and {said.gflop:.3g} in training an image" in done.stderr


@pytest.mark.usefixtures("no_count")
def test_gpus_share_the_batch_and_the_hours():
    one, four = (maekit.plan("digits", images=MILLION, gpus=gpus, batch_size=64, rate=1000.0) for gpus in (1, 4))
    assert (one.micro_batch_size, four.micro_batch_size) == (64, 16)
    assert one.hours == pytest.approx(4 * four.hours)
    assert one.gpu_hours == pytest.approx(four.gpu_hours) == pytest.approx(one.steps * 64 / 1000 / 3600)
    assert {way["parallel"] for way in one.memory} == {"ddp"}
    assert {way["parallel"] for way in four.memory} == {"ddp", "fsdp"}
    ddp, fsdp = (next(way for way in four.memory if way["parallel"] == kind) for kind in ("ddp", "fsdp"))
    assert fsdp["weights"] < ddp["weights"] / 3
    assert ddp["total"] == pytest.approx(sum(ddp[name] for name in ("weights", "gradients", "moments", "activations")))
    assert maekit.plan("digits", images=MILLION).hours is None
    assert "not known: give --rate" in str(maekit.plan("digits", images=MILLION))


@pytest.mark.usefixtures("no_count")
def test_it_is_called_an_estimate_wherever_it_is_told(maekit_here):
    done = maekit_here("plan", "digits", "--images", MILLION, "--rate", "100", "--memory", "16", "--json")
    said, shown = json.loads(done.stdout), done.stderr
    assert said["estimate"].keys() == {"steps", "gflop", "memory", "fits", "hours"}
    assert shown.startswith("an estimate, by calculation, of maekit pretrain digits\n")
    assert "about " in shown
    assert "as stated" in shown
    assert all(f"  {name}: {words}" in shown for name, words in said["estimate"].items())
    assert "an estimate" in maekit.plan("digits", images=MILLION)._repr_html_()


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"gpus": 3}, "64 images do not divide over 3 devices; take a multiple of 3, such as 63 or 66"),
        ({"gpus": 4, "micro_batch_size": 5}, r"16 images a device \(64 over 4\) are not a multiple of 5"),
        ({"gpus": 128}, "64 images do not divide over 128 devices; take a multiple of 128, such as 128 or 256"),
    ],
)
def test_a_batch_that_does_not_divide_is_explained(given, line):
    with pytest.raises(maekit.RunError, match=line):
        maekit.plan("digits", images=MILLION, **given)


@pytest.mark.usefixtures("no_count")
@pytest.mark.parametrize(
    ("words", "ddp", "fsdp", "advice"),
    [
        ("--gpus 1 --memory 80", 64, None, []),
        ("--gpus 1 --memory 60", 32, None, [f"--micro-batch-size 32: {PASSES.format(2)}", f"{AGAIN}: {SLOWER}"]),
        ("--gpus 4 --memory 40", 16, 16, []),
        ("--gpus 4 --memory 19.5", 8, 16, [
            f"--micro-batch-size 8: {PASSES.format(2)}", f"{AGAIN}: {SLOWER}", f"{FSDP}: {SENT}",
            f"{FSDP} {AGAIN}: {SENT}, and {SLOWER}",
        ]),
        ("--gpus 4 --memory 4", 1, 2, [
            f"--micro-batch-size 1: {PASSES.format(16)}", f"{AGAIN} --micro-batch-size 2: {SLOWER}",
            f"{FSDP} --micro-batch-size 2: {SENT}", f"{FSDP} {AGAIN} --micro-batch-size 4: {SENT}, and {SLOWER}",
        ]),
        ("--gpus 4 --memory 1.5", None, None, []),
    ],
)  # fmt: skip
def test_what_fits_what_makes_it_fit_and_that_it_does(maekit_here, words, ddp, fsdp, advice):
    def planned(*more):
        done = maekit_here("plan", "digits", "--images", MILLION, *words.split(), *more, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr

    said, shown = planned()
    gigabytes = float(words.split()[-1])
    for way in said["memory"]:
        assert way["fits"] == (way["total"] <= 0.9 * gigabytes - 1)
        if not way["checkpoint_activations"]:
            assert way["largest_micro_batch_size"] == {"ddp": ddp, "fsdp": fsdp}[way["parallel"]]
    assert said["fits"] == next(way["fits"] for way in said["memory"] if way["asked"])
    assert said["advice"] == advice
    for line in advice:
        assert f"  {line}" in shown
        assert planned(*line.partition(":")[0].split())[0]["fits"], line
    if not said["fits"] and not advice:
        assert "nor does one image by any of these ways" in shown


def test_the_largest_pass_that_fits_is_the_largest():
    said = maekit.plan("digits", images=MILLION, batch_size=4096, memory=1.3)
    most = of_asked(said)["largest_micro_batch_size"]
    assert 1 < most < 4096
    fits, too_many = (
        maekit.plan("digits", images=MILLION, batch_size=4096, micro_batch_size=images, memory=1.3)
        for images in (most, 2 * most)
    )
    assert (fits.fits, too_many.fits) == (True, False)


@pytest.mark.usefixtures("no_count")
def test_a_config_a_file_and_a_run_can_be_planned(tmp_path):
    preset = presets.PRETRAIN["digits"]()
    config = replace(preset, schedule=replace(preset.schedule, steps=7))
    assert maekit.plan(config, images=MILLION).steps == 7
    own = PlanConfig.of(replace(config, name="own"))
    assert maekit.plan(replace(own, gpus=2)).gpus == 2
    assert maekit.plan(own).preset == "own"
    (tmp_path / "mine.json").write_text(json.dumps({"config": maekit.config.files.to_dict(config)}))
    assert maekit.plan(tmp_path / "mine.json", images=5000).images == 5000
    with pytest.raises(maekit.UsageError, match="plan: takes a preset's name, a path or a PlanConfig, not int"):
        maekit.plan(3)


def test_a_run_that_begins_with_smaller_images_does_less():
    words = {"images": 10_000, "steps": 100, "options": {"run.precision": "fp32"}}
    plain = maekit.plan("vit-tiny-small-data", **words)
    less = maekit.plan(
        "vit-tiny-small-data", **{**words, "options": {**words["options"], "schedule.resolutions": (32, 0.5)}}
    )
    assert 0.5 * plain.gflop < less.gflop < 0.8 * plain.gflop
    assert of_asked(less)["total"] == of_asked(plain)["total"]


def test_the_rate_is_measured_where_it_is_asked_for(monkeypatch, photos):
    asked = []

    def timed(config, micro, passes):
        asked.append((config.data.source, micro, passes, config.validation.split))
        return 50.0, 0.0, 0.0

    monkeypatch.setattr(suggest, "timed_passes", timed)
    sizes = dict(zip(tiny.SIZES[::2], tiny.SIZES[1::2], strict=True))
    options = {name[2:]: value for name, value in sizes.items() if name.startswith("--model")}
    given = {"data": photos, "batch_size": 4, "steps": 8, "image_size": 32, "val_split": 0.5, "device": "cpu"}
    said = maekit.plan("vit-tiny", **given, measure=True, gpus=2, options=options)
    assert asked == [(str(photos), 2, 8, None)]
    assert (said.images, said.images_per_second) == (6, 50.0)
    assert said.hours == pytest.approx(8 * 4 / 100 / 3600)
    assert "measured here" in str(said)
    assert "measured on this machine" in said.estimate["hours"]


def test_measuring_trains_and_leaves_nothing(maekit_here, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--data", photos, "--batch-size", "4", "--steps", "100", "--workers", "0", "--measure", "--json")
    done = maekit_here("plan", "vit-tiny", *tiny.SIZES, *words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images_per_second"] > 0
    assert list(tmp_path.iterdir()) == []


def test_own_parts_are_counted_and_told_where_they_cannot_be():
    own = {"images": MILLION, "gpus": 2, "batch_size": 8, "options": {"run.precision": "fp32"}}
    said = maekit.plan("digits", mask="own_parts:Stripes", loss="own_parts:huber", **own)
    assert of_asked(said)["total"] > 0
    with pytest.raises(maekit.ModelError, match="a part of your own does not work on tensors that have no data"):
        maekit.plan("digits", loss="own_parts:reading", **own)


@pytest.mark.usefixtures("no_count")
def test_the_plan_is_of_the_schedules_own_making():
    preset = presets.PRETRAIN["vit-tiny-small-data"]()
    said = maekit.plan("vit-tiny-small-data", images=20, gpus=2)
    batch = preset.schedule.fitting_batch(20, 2, on_cpu=False)
    schedule = replace(preset.schedule, batch_size=batch)
    plan = Plan.of(preset.optimizer, schedule, 20, 2)
    assert (said.steps, said.batch_size, said.lr) == (plan.steps, batch, plan.lr)
    assert "not the recipe's" in str(said)


@pytest.mark.usefixtures("no_count")
def test_a_large_model_is_planned_without_being_made(monkeypatch):
    """Its weights alone would take 2.6 GB."""
    made, build = [], mae.build
    monkeypatch.setattr(mae, "build", lambda *given, **named: made.append(build(*given, **named)) or made[-1])
    said = maekit.plan("vit-huge", images=MILLION, gpus=2)
    assert said.parameters > 650e6
    assert {parameter.device.type for model in made for parameter in model.parameters()} == {"meta"}


@pytest.mark.slow
def test_the_plan_that_the_document_shows_is_what_is_said(maekit_here):
    document = Path(__file__).parents[2] / "docs" / "scaling.md"
    block = re.search(r"```console\n\$ maekit (plan .*?)\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)
    done = maekit_here(*block[1].split())
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(block[2])
