"""Two processes make one process's run."""

import shutil

import pytest
import torch

import maekit
import tiny
from maekit.engine import metrics
from maekit.engine.distributed import World, choose_device
from maekit.errors import RunError
from processes import in_two_processes
from processes import maekit as maekit_words

STEPS = 20


def words_for(photos):
    return [
        "pretrain", "vit-tiny", *tiny.SIZES, "--data", photos, "--steps", STEPS, "--batch-size", "8",
        "--micro-batch-size", "2", "--lr", "1e-3", "--workers", "0", "--run.no-tensorboard", "--val", photos,
        "--optimizer.clip", "1", "--checkpoint-every", "10",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def runs(maekit_here, photos, tmp_path_factory):
    """(the folder of a run by one process, that of the same by two)."""
    root, words = tmp_path_factory.mktemp("world"), words_for(photos)
    done = maekit_here(*words, "--out", root / "one")
    assert done.returncode == 0, done.stderr
    two = in_two_processes(maekit_words, *words, "--out", root / "two", patience=200)
    assert [rank.value for rank in two] == [0, 0], two[0].err + two[1].err
    assert [rank.out.count("done:") for rank in two] == [1, 0]
    return root / "one", root / "two"


@pytest.mark.slow
def test_losses_are_those_of_one_process(runs):
    histories = [metrics.read(run / "metrics.jsonl") for run in runs]
    for one, two in zip(*histories, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-6)
        assert two["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-4)
        for name in ("step", "epoch", "lr"):
            assert two[name] == one[name]


@pytest.mark.slow
def test_validation_is_that_of_one_process(runs):
    one, two = (metrics.last(run / "metrics.jsonl") for run in runs)
    for name in ("val_loss", "val_rankme", "val_knn"):
        assert two[name] == pytest.approx(one[name], rel=1e-4)


@pytest.mark.slow
def test_weights_are_those_of_one_process(runs):
    one, two = (maekit.load(run).state_dict() for run in runs)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_one_process_goes_on_where_two_were_interrupted(runs, maekit_here, photos, tmp_path):
    one, two = runs
    shutil.copytree(two, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step-{STEPS}")
    done = maekit_here(*words_for(photos), "--out", tmp_path / "run", "--resume")
    assert done.returncode == 0, done.stderr
    assert "going on from step 10" in done.stderr
    losses = [[record["loss"] for record in metrics.read(run / "metrics.jsonl")] for run in (one, tmp_path / "run")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_muon_in_two_processes_makes_the_steps_of_one(maekit_here, photos, tmp_path):
    """As near as its products in bf16 let it: each process has the whole of every matrix."""
    words = [*words_for(photos), "--optimizer.name", "muon", "--steps", "4"]
    said = in_two_processes(maekit_words, *words, "--out", tmp_path / "two")
    assert [rank.value for rank in said] == [0, 0], said[0].err + said[1].err
    assert maekit_here(*words, "--out", tmp_path / "one").returncode == 0
    histories = [metrics.read(tmp_path / run / "metrics.jsonl") for run in ("one", "two")]
    assert histories[1][0]["loss"] == pytest.approx(histories[0][0]["loss"], rel=1e-6)
    assert [r["loss"] for r in histories[1]] == pytest.approx([r["loss"] for r in histories[0]], rel=1e-3)
    one, two = (maekit.load(tmp_path / run).state_dict() for run in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=2e-4, rtol=1e-2)


def test_a_folder_that_holds_a_run_is_refused_in_one_line_of_all(runs, photos):
    said = in_two_processes(maekit_words, *words_for(photos), "--out", runs[0])
    assert [rank.value for rank in said] == [1, 1]
    lines = [line for rank in said for line in rank.err.splitlines() if line.startswith(("maekit: ", "Traceback"))]
    assert len(lines) == 1
    assert "holds a run already" in lines[0]


def test_a_world_of_one_waits_for_nobody():
    world = World()
    assert world.is_first
    assert world.agree(True)
    assert not world.agree(False)
    assert world.tell({"a": 1}) == {"a": 1}
    assert world.gather([1, 2]) == [1, 2]
    assert torch.equal(world.mean(torch.tensor(3.0)), torch.tensor(3.0, dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "words"),
    [("tpu9", "is no device"), ("meta", "is no device maekit runs on"), ("cuda:99", "device cuda:99: ")],
)
def test_devices_that_are_not_there_are_refused(name, words):
    with pytest.raises(RunError, match=words):
        choose_device(name)
