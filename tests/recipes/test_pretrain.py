"""`maekit pretrain` as a user meets it: what it leaves, what it says, that it repeats itself, and what it refuses."""

import json
import re
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import maekit
import tiny
from maekit.engine import metrics

WORDS = ("pretrain", "vit-tiny", *tiny.SIZES, "--batch-size", "8", "--lr", "1e-3", "--workers", "0")


@pytest.fixture(scope="module")
def finished(maekit_here, photos, tmp_path_factory):
    """(the finished command, its run folder): 20 steps in passes of 4 images, validated on the same photographs."""
    folder = tmp_path_factory.mktemp("pretrain") / "run"
    done = maekit_here(
        *WORDS, "--data", photos, "--out", folder, "--steps", "20", "--checkpoint-every", "8", "--json",
        "--micro-batch-size", "4", "--val", photos, "--val-every", "4", "--optimizer.clip", "1", "--run.ema", "0.9",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done, folder


def losses(folder):
    return [record["loss"].hex() for record in metrics.read(Path(folder) / "metrics.jsonl")]


def test_it_leaves_a_whole_run(finished):
    _, folder = finished
    names = {entry.name for entry in folder.iterdir()}
    assert names >= {
        "config.json", "metrics.jsonl", "tensorboard", "checkpoints", "model.safetensors", "model_ema.safetensors",
        "report.html", "log.txt",
    }  # fmt: skip
    assert "lock" not in names
    assert not [name for name in names if name.endswith(".part")]
    assert sorted(entry.name for entry in (folder / "checkpoints").iterdir()) == ["step-16", "step-20"]


def test_it_keeps_what_it_painted_on_the_way_and_what_it_was_before(finished):
    _, folder = finished
    names = {path.name for path in (folder / "pictures" / "moments").iterdir()}
    steps = {f"step-{step}.jpg" for step in (0, 1, 4, 10, 20)}
    assert names == {"masked.jpg", "original.jpg", *steps}
    before = json.loads((folder / "untrained.json").read_text())
    assert before.keys() == {"images", "val_loss", "val_rankme", "val_knn"}  # twelve images are too few for alpha-ReQ
    assert before["images"] == 12
    report = (folder / "report.html").read_text()
    assert report.count("data:image/jpeg;base64,") >= 7
    words = "In words", "images seen", "Painted during training", "step 10", "What looks alike", "by 12 of them"
    assert not [word for word in words if word not in report]
    assert "<script" not in report


@pytest.mark.parametrize(
    "broken", ["maekit.report.page.write", "maekit.report.features.nearest", "PIL.Image.Image.save"]
)
def test_whatever_its_report_meets_a_pretraining_keeps_its_weights(maekit_here, photos, tmp_path, monkeypatch, broken):
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr(broken, fails)
    done = maekit_here(*WORDS, "--data", photos, "--out", tmp_path / "run", "--steps", "2")
    assert done.returncode == 0, done.stderr
    assert isinstance(maekit.load(tmp_path / "run"), maekit.MaskedAutoencoder)
    assert re.search("the report lacks .*: RuntimeError: no luck", done.stderr)


def test_names_of_classes_and_files_are_no_markup(maekit_here, photos, tmp_path):
    for number, photo in enumerate(sorted(Path(photos).rglob("*.jpg"))[:4]):
        evil = tmp_path / "images" / f"<script>alert({number % 2})<" / "script>"
        evil.mkdir(parents=True, exist_ok=True)
        (evil / f'"><img src=x onerror=alert(1)>{number}.jpg').write_bytes(photo.read_bytes())
    images = tmp_path / "images"
    done = maekit_here(*WORDS, "--data", images, "--out", tmp_path / "run", "--steps", "1", "--val", images)
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "run" / "report.html").read_text()
    assert "<script" not in report
    assert "<img src=x" not in report


def test_the_last_line_is_the_answer(finished):
    done, folder = finished
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["run"] == str(folder)
    assert answer["steps"] == 20
    assert answer["loss"] == metrics.last(folder / "metrics.jsonl")["loss"]
    assert 0 <= answer["val_knn"] <= 1


def test_every_step_has_its_line(finished):
    _, folder = finished
    records = metrics.read(folder / "metrics.jsonl")
    assert [record["step"] for record in records] == list(range(1, 21))
    for record in records:
        assert record.keys() >= {"step", "epoch", "loss", "lr", "images_per_second", "gradient_norm"}
    assert records[-1]["epoch"] == pytest.approx(20 * 8 / 12)
    judged = [record["step"] for record in records if "val_loss" in record]
    assert judged == [6, 12, 18, 20]  # every four epochs of twelve images in batches of eight, and at the end
    judged = {"val_loss", "val_rankme", "val_knn", "val_rankme_ema", "val_knn_ema"}
    assert {name for name in records[-1] if name.startswith("val_")} == judged  # the average has no decoder
    board = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("loss")] == list(range(1, 21))


def test_the_header_says_what_will_happen_before_it_does(finished):
    done, _ = finished
    header = done.stderr[: done.stderr.index("step 1/20")]
    for words in (
        "12 images, 2 classes", "vit_tiny_patch16_224 at 32x32x3", "0.03 M parameters", "GFLOP",
        "batch   8\n", "1 devices x 4 images x 2 passes a step", "0.001 at its peak, 0.032 per 256 images",
        "20 (13.33 epochs), 1 of them warmup", "cpu, fp32",
    ):  # fmt: skip
        assert words in header, words
    assert "left" in next(line for line in done.stderr.splitlines() if line.startswith("step 20/20"))


def test_the_config_says_what_ran(finished, photos):
    _, folder = finished
    said = json.loads((folder / "config.json").read_text())
    assert said["config"]["schedule"]["batch_size"] == 8
    assert said["config"]["optimizer"]["lr"] == 1e-3
    assert said["data"] | {"fingerprint": ""} == {
        "source": str(photos), "images": 12, "classes": 2, "fingerprint": "",
        "passed_over": {"images": {}, "beside": {}, "notes": []},
    }  # fmt: skip
    assert said["computed"] == {
        "steps": 20, "warmup_steps": 1, "lr": 1e-3, "base_lr": 0.032, "micro_batch": 4, "accumulation": 2,
        "world_size": 1, "gflop": said["computed"]["gflop"],
    }  # fmt: skip
    assert said["versions"]["torch"] == version("torch")


def test_the_weights_are_a_model(finished):
    _, folder = finished
    model = maekit.load(folder)
    assert model.grid == (4, 4)
    assert model.config.width == 32
    checkpoint = maekit.load(folder / "checkpoints" / "step-20" / "model.safetensors")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in checkpoint.state_dict().items())


def test_the_average_is_an_encoder_alone_that_verbs_take(finished, maekit_here, photos, tmp_path):
    done, folder = finished
    path, last = folder / "model_ema.safetensors", maekit.load(folder)
    averaged = maekit.load(path)
    assert type(averaged) is maekit.models.encoder.ImageEncoder
    trained = [name for name, p in last.encoder.named_parameters() if p.requires_grad]
    assert not any(torch.equal(averaged.encoder.state_dict()[n], last.encoder.state_dict()[n]) for n in trained)
    assert torch.equal(averaged.encoder.pos_embed, last.encoder.pos_embed)
    assert "model_ema.safetensors" in (folder / "report.html").read_text()
    said = maekit_here("inspect", path, "--json")
    assert "reconstruct" not in json.loads(said.stdout.splitlines()[-1])["can"]
    on_cpu = ("--weights", path, "--data", photos, "--device", "cpu", "--workers", "0")
    for words in (
        ("probe", *on_cpu, "--val", photos, "--kinds", "knn", "--neighbours", "3"),
        ("embed", *on_cpu, "--out", tmp_path / "f.npz"),
        ("convert", path, "--to", "timm", "--out", tmp_path / "timm"),
        ("finetune", "vit-tiny", *on_cpu, "--val", photos, "--out", tmp_path / "tuned", "--steps", "1", "--lr", "1e-4",
         "--batch-size", "4"),
        (*WORDS, *on_cpu[:4], "--out", tmp_path / "on", "--steps", "1"),
    ):  # fmt: skip
        done = maekit_here(*words)
        assert done.returncode == 0, done.stderr


def test_the_average_is_that_of_the_encoders_weights_by_hand(maekit_here, photos, tmp_path):
    words = (*WORDS, "--data", photos, "--out", tmp_path / "run", "--steps", "5", "--run.ema", "0.5", "--keep", "9")
    assert maekit_here(*words, "--checkpoint-every", "1", "--run.no-tensorboard").returncode == 0
    expected = 0
    for step in range(1, 6):
        checkpoint = tmp_path / "run" / "checkpoints" / f"step-{step}"
        name = "encoder.blocks.0.attn.qkv.weight"
        expected = 0.5 * expected + 0.5 * load_file(checkpoint / "model.safetensors")[name]
        average = load_file(checkpoint / "ema.safetensors")[name]
        torch.testing.assert_close(average, expected / (1 - 0.5**step))
    assert not [name for name in load_file(checkpoint / "ema.safetensors") if not name.startswith("encoder.")]


def test_a_run_repeats_itself_from_its_own_config(finished, maekit_here, tmp_path):
    _, folder = finished
    done = maekit_here("pretrain", folder / "config.json", "--out", tmp_path / "again", "--run.no-tensorboard")
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "again") == losses(folder)
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_the_loss_of_the_first_step_follows_from_the_seed(maekit_here, photos, finished, tmp_path):
    _, folder = finished
    done = maekit_here(*WORDS, "--data", photos, "--out", tmp_path / "run", "--steps", "1", "--seed", "1")
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "run")[0] != losses(folder)[0]


def test_weights_to_continue_from(finished, maekit_here, photos, tmp_path):
    _, folder = finished
    done = maekit_here(
        *WORDS, "--data", photos, "--out", tmp_path / "run", "--weights", folder, "--steps", "1", "--lr", "1e-12"
    )
    assert done.returncode == 0, done.stderr
    before, after = maekit.load(folder).state_dict(), maekit.load(tmp_path / "run").state_dict()
    assert all(torch.allclose(value, before[name], atol=1e-6) for name, value in after.items())


def test_images_of_one_channel_and_any_shape(maekit_here, tmp_path):
    draw = np.random.default_rng(0)
    for number in range(4):
        pixels = draw.integers(0, 256, (20, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    done = maekit_here(
        *WORDS, "--data", tmp_path, "--out", tmp_path / "run", "--steps", "2", "--model.channels", "1",
        "--image-size", "16", "32", "--normalise", "half", "--batch-size", "4",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert maekit.load(tmp_path / "run").grid == (2, 4)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--image-size", "36"), 1, "height 36 is not a multiple of the 8-px patch; take 32 or 40"),
        (("--micro-batch-size", "3"), 1, "not a multiple of 3; take a divisor of 8"),
        (("--image-size", "32", "0"), 2, "model.image_size: should be 1 or more, got (32, 0)"),
        (("--augment.scale", "5", "6"), 2, "augment.scale: should be less than or equal to 1, got 5.0"),
        (
            ("--augment.ratio", "2", "1"),
            2,
            "augment.ratio: should be a range, the smaller number first",
        ),
        (("--steps", "0"), 2, "no optimizer step"),
        (("--device", "cuda:99"), 1, "device cuda:99"),
        (("--data", "absent"), 2, "--data: is given twice"),
        (("--val", "absent"), 1, "absent: no such file or folder"),
    ],
)
def test_mistakes_get_one_line_and_leave_nothing(maekit_here, photos, tmp_path, options, code, words):
    done = maekit_here(*WORDS, "--data", photos, "--out", tmp_path / "deep" / "run", "--steps", "2", *options)
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_images_gets_one_line(maekit_here, tmp_path):
    done = maekit_here(*WORDS, "--data", tmp_path, "--out", tmp_path / "run", "--steps", "2")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert f"{tmp_path}: holds no image" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_images_that_cannot_be_read_are_named_and_leave_nothing(maekit_here, tmp_path):
    names = [f"{number}.jpg" for number in range(3)]
    for name in names:
        (tmp_path / name).write_text("no image")
    done = maekit_here(*WORDS, "--data", tmp_path, "--out", tmp_path / "run", "--steps", "2")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert "none of its 3 images can be read" in last
    assert all(name in last for name in names)
    assert not (tmp_path / "run").exists()


def test_unlabelled_images_among_the_held_out_and_a_file_that_is_no_image(maekit_here, photos, tmp_path):
    files = sorted(photos.rglob("*.jpg"))[:8] or sorted(path for path in photos.rglob("*") if path.is_file())[:8]
    lines = [f"{path}, {number % 2}" if number % 3 else str(path) for number, path in enumerate(files)]
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    (tmp_path / "list.txt").write_text("\n".join([*lines, f"{bad}, 1"]))
    source = ("--data", tmp_path / "list.txt", "--val", tmp_path / "list.txt")
    done = maekit_here(*WORDS, *source, "--out", tmp_path / "run", "--steps", "4", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["unreadable"] == 1
    assert 0 <= answer["val_knn"] <= 1
    named = [line for line in done.stderr.splitlines() if "bad.png: cannot be used" in line]
    assert len(named) == 2  # as a training image and as a held-out one: not once a validation
    assert "1 images of" in done.stderr


@pytest.mark.parametrize("out", ["file", "file/run", "/proc/run", "full"])
def test_a_run_folder_that_cannot_be_written_gets_one_line(maekit_here, photos, tmp_path, out):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "lock").symlink_to("/dev/full")
    done = maekit_here(*WORDS, "--data", photos, "--out", tmp_path / out, "--steps", "2")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "cannot be written" in done.stderr
    assert [path.name for path in (tmp_path / "full").iterdir()] in (["lock"], [])
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_folder_that_holds_a_run_is_not_written_over_unasked(finished, maekit_here, photos):
    _, folder = finished
    before = losses(folder)
    done = maekit_here(*WORDS, "--data", photos, "--out", folder, "--steps", "2")
    assert done.returncode == 1
    assert "holds a run already; --resume continues it, --overwrite starts anew" in done.stderr
    assert losses(folder) == before


def test_overwriting_removes_the_old_run_and_nothing_else(maekit_here, photos, tmp_path):
    folder = tmp_path / "run"
    for words in (("--steps", "3"), ("--steps", "2", "--overwrite", "--run.no-tensorboard")):
        (folder).mkdir(exist_ok=True)
        (folder / "notes.txt").write_text("mine")
        assert maekit_here(*WORDS, "--data", photos, "--out", folder, *words).returncode == 0
    assert len(losses(folder)) == 2
    assert not (folder / "tensorboard").exists()
    assert (folder / "notes.txt").read_text() == "mine"


def test_what_a_run_cannot_reach_is_said_before_it_begins(maekit_here, photos, tmp_path):
    words = (*WORDS, "--data", photos, "--out", tmp_path / "run", "--steps", "2", "--batch-size", "64")
    said = maekit_here(*words).stderr
    assert "a batch of 64 is more than the 12 images" in said
    assert "2 steps are few to learn from" in said
    assert "about " in said
    assert "for 2 steps" in said


def test_a_warmup_that_never_ends_is_said(maekit_here, photos, tmp_path):
    words = (*WORDS, "--data", photos, "--out", tmp_path / "run", "--epochs", "2")
    assert "the whole run is warmup" in maekit_here(*words).stderr
    done = maekit_here(*words, "--schedule.warmup-epochs", "1", "--overwrite")
    assert done.returncode == 0
    assert "the whole run is warmup" not in done.stderr
