"""--schedule.resolutions: which steps see which size, after any interruption too; what is said of it, and refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import maekit
import tiny
from maekit import presets
from maekit.config import ScheduleConfig
from maekit.engine import metrics
from maekit.engine.distributed import World
from maekit.errors import UsageError
from maekit.recipes.pretrain import Pretraining
from processes import in_two_processes
from processes import maekit as maekit_words

WORDS = (
    "pretrain", "vit-tiny", *tiny.SIZES, "--batch-size", "8", "--micro-batch-size", "4", "--lr", "1e-3", "--steps", "8",
    "--run.no-tensorboard", "--schedule.resolutions", "16", "0.5", "24", "0.75", "--run.log-every", "1",
)  # fmt: skip


def losses(folder):
    return [record["loss"].hex() for record in metrics.read(Path(folder) / "metrics.jsonl")]


def test_sizes_by_hand():
    schedule = ScheduleConfig(steps=10, resolutions=(128, 0.6, 160, 0.9))
    assert schedule.sizes((224, 224), 10) == [(0, 6, (128, 128)), (6, 9, (160, 160)), (9, 10, (224, 224))]
    assert schedule.sizes((448, 224), 10)[0] == (0, 6, (256, 128))  # the shorter side is given
    assert ScheduleConfig(steps=10).sizes((224, 224), 10) == [(0, 10, (224, 224))]


@pytest.mark.parametrize(
    "wrong", [(128.0,), (128, 0.6, 160), (128, 0.6, 160, 0.6), (128, 0.6, 160, 0.3), (128, 1.0), (16, 32)]
)
def test_what_are_no_pairs_is_refused(wrong):
    with pytest.raises(UsageError, match="takes pairs, a size and a rising share"):
        ScheduleConfig(steps=10, resolutions=wrong).sizes((224, 224), 10)


@pytest.mark.parametrize("start", [0, 3, 4, 5, 7])
def test_each_step_sees_its_size_from_wherever_it_begins(start):
    preset = presets.PRETRAIN["digits"]()
    schedule = replace(
        preset.schedule, steps=8, epochs=None, batch_size=4, micro_batch_size=2, resolutions=(4, 0.5, 6, 0.75)
    )
    training = Pretraining(replace(preset, schedule=schedule), World())
    batches = list(training._batches(start))
    sizes = [4] * 8 + [6] * 4 + [8] * 4
    assert [batch.images.shape[2:] for batch in batches] == [(side, side) for side in sizes[2 * start :]]
    plain = Pretraining(replace(preset, schedule=replace(schedule, resolutions=())), World())
    for one, other in zip(batches, plain._batches(start), strict=True):
        assert torch.equal(one.indices, other.indices)  # the same images in the same order


@pytest.fixture(scope="module")
def finished(maekit_here, photos, tmp_path_factory):
    """(what was said, the run folder): four steps at 16 px, two at 24, two at 32."""
    folder = tmp_path_factory.mktemp("sizes") / "run"
    words = (*WORDS, "--data", photos, "--out", folder, "--workers", "0", "--checkpoint-every", "1", "--keep", "9")
    done = maekit_here(*words, "--val", photos)
    assert done.returncode == 0, done.stderr
    return done.stderr, folder


def test_the_model_is_of_the_whole_size_and_judged_at_it(finished):
    said, folder = finished
    model = maekit.load(folder)
    assert model.config.image_hw == (32, 32)
    assert model.grid == (4, 4)
    assert "16x16 until step 4, 24x24 until step 6, 32x32 until step 8: " in said
    share = int(said.split("until step 8: ")[1].split("%")[0])
    assert 40 < share < 60  # a quarter of the pixels for half of the steps, half of them for a quarter
    assert all(record["val_loss"] > 0 for record in metrics.read(folder / "metrics.jsonl") if "val_loss" in record)


@pytest.mark.parametrize("step", [2, 4, 5, 7])
def test_it_goes_on_bit_for_bit_from_any_step(finished, maekit_here, photos, tmp_path, step):
    _, folder = finished
    shutil.copytree(folder, tmp_path / "run")
    for later in range(step + 1, 9):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step-{later}")
    words = (*WORDS, "--data", photos, "--out", tmp_path / "run", "--val", photos, "--resume", "--workers", "1")
    done = maekit_here(*words)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "run") == losses(folder)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_two_processes_make_the_steps_of_one(finished, photos, tmp_path):
    _, folder = finished
    words = (*WORDS, "--data", photos, "--out", tmp_path / "run", "--workers", "0", "--micro-batch-size", "2")
    said = in_two_processes(maekit_words, *words)
    assert [rank.value for rank in said] == [0, 0], said[0].err + said[1].err
    two, one = (metrics.read(run / "metrics.jsonl") for run in (tmp_path / "run", folder))
    assert [record["loss"] for record in two] == pytest.approx([record["loss"] for record in one], rel=1e-5)


def test_a_branch_of_another_length_is_refused(finished, maekit_here, tmp_path):
    _, folder = finished
    place = folder / "checkpoints" / "step-2"
    done = maekit_here("pretrain", folder / "config.json", "--branch", place, "--steps", "6", "--out", tmp_path / "run")
    assert done.returncode == 1
    assert "schedule.steps was 8, is 6" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--schedule.resolutions", "20", "0.5"), "height 20 is not a multiple of the 8-px patch; take 16 or 24"),
        (("--model.positions", "learned"), "encoder.pos_embed is trained for one size"),
        (("--schedule.resolutions", "16"), "takes pairs, a size and a rising share"),
        (("--schedule.resolutions", "8", "0.5"), "mask.ratio 0.75: hides 1 of 1 units"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(maekit_here, photos, tmp_path, options, words):
    done = maekit_here(*WORDS, "--data", photos, "--out", tmp_path / "run", "--workers", "0", *options)
    assert done.returncode in (1, 2)
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
