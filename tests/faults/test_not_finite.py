"""A loss that is not finite reaches neither weights nor a checkpoint."""

import json
from dataclasses import replace

import pytest
import torch

from maekit import storage
from maekit.engine import metrics
from maekit.engine.distributed import join
from maekit.engine.loop import train
from maekit.engine.run_state import open_run
from maekit.errors import MaekitError, TrainingError
from processes import in_two_processes
from toy_task import ADAMW, CPU, MUON, SGD, ToyTask, plan_of, run, toy_batches

OPTIMIZERS = [ADAMW, SGD, MUON, replace(ADAMW, name="lars"), replace(ADAMW, clip=1.0)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("log_every", [1, 4])
def test_the_run_stops_before_the_update(tmp_path, optimizer, precision, log_every):
    folder = tmp_path / "run"
    options = {"optimizer": optimizer, "precision": precision, "checkpoint_every": 2, "log_every": log_every}
    task = ToyTask(poison=(43,))  # step 5 takes 40 to 47
    with pytest.raises(TrainingError, match="not finite at step 5, before the update; its images are listed in"):
        run(task, plan_of(9), folder, **options)
    sound = ToyTask()
    run(sound, plan_of(9), tmp_path / "sound", **{**options, "checkpoint_every": 5, "keep": 9})
    at_five = storage.read_tensors(tmp_path / "sound" / "checkpoints" / "step-5" / "model.safetensors")
    assert all(torch.equal(value, at_five[name]) for name, value in task.model.state_dict().items())
    assert json.loads((folder / "not_finite.json").read_text()) == {"step": 5, "images": list(range(40, 48))}
    checkpoints = sorted(folder.glob("checkpoints/step-*"))
    assert [checkpoint.name for checkpoint in checkpoints] == ["step-2", "step-4"]
    for checkpoint in checkpoints:
        storage.read_facts(checkpoint)
        for path in checkpoint.glob("*.safetensors"):
            assert all(torch.isfinite(value).all() for value in storage.read_tensors(path).values())
    assert all(record["loss"] is not None for record in metrics.read(folder / "metrics.jsonl"))


def test_a_gradient_alone_that_is_not_finite_stops_the_run_too(tmp_path):
    task = ToyTask(dropout=0)
    task.model[0].weight.register_hook(lambda gradient: gradient * float("inf"))
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    with pytest.raises(TrainingError, match="not finite at step 0"):
        run(task, plan_of(3), tmp_path / "run")
    assert all(torch.equal(value, before[name]) for name, value in task.model.state_dict().items())


def attempt(world, folder, task):
    plan = plan_of(9, 8, 4, world=2)
    try:
        train(
            task,
            lambda start: toy_batches(plan, start, world.rank),
            plan=plan,
            optimizer=ADAMW,
            config=replace(CPU, checkpoint_every=2),
            world=world,
            folder=folder,
            facts={},
        )
    except MaekitError as error:
        return f"{type(error).__name__}: {error}"


def attempts(root):
    """What one of two processes says of a run with a NaN on the second, and of one with a signal to the second."""
    with join("cpu", 30) as world:
        second = world.rank == 1
        said = {}
        for name, task in {
            "nan": ToyTask(poison=(45,)),  # the second rank's share of step 5
            "signal": ToyTask(signals={29: 15} if second else {}),  # the second rank's share of step 3
        }.items():
            if second:
                world.wait()
                said[name] = attempt(world, None, task)
            else:
                with open_run(root / name, resume=False, overwrite=False) as folder:
                    world.wait()
                    said[name] = attempt(world, folder, task)
            said[name + " weights"] = float(sum(p.detach().double().sum() for p in task.model.parameters()))
        return said


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """(the folder of both runs, what two processes said of them)."""
    folder = tmp_path_factory.mktemp("ranks")
    said = in_two_processes(attempts, folder)
    assert all(rank.value for rank in said), said[0].err + said[1].err
    return folder, [rank.value for rank in said]


@pytest.mark.slow
def test_a_nan_on_one_of_two_ranks_stops_both(two_ranks):
    folder, said = two_ranks
    for rank in said:
        assert rank["nan"].startswith("TrainingError: the loss or its gradient is not finite at step 5")
    assert said[0]["nan weights"] == said[1]["nan weights"]
    assert json.loads((folder / "nan" / "not_finite.json").read_text())["images"] == list(range(40, 48))
    assert storage.read_facts(folder / "nan" / "checkpoints" / "step-4")["step"] == 4
    assert not (folder / "nan" / "checkpoints" / "step-6").exists()


@pytest.mark.slow
def test_a_signal_to_one_of_two_ranks_stops_both_after_saving(two_ranks):
    folder, said = two_ranks
    assert said[0]["signal"] == "Stopped: stopped by a signal to another process after saving step 4"
    assert said[1]["signal"] == "Stopped: stopped by SIGTERM after saving step 4"
    assert storage.read_facts(folder / "signal" / "checkpoints" / "step-4")["step"] == 4
