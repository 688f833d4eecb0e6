"""The training loop, on a task small enough to be computed by hand."""

import json
import signal
from dataclasses import replace

import pytest
import torch
from torch import nn

import toy_task
from maekit import storage
from maekit.engine import metrics
from maekit.engine.distributed import World
from maekit.engine.loop import train
from maekit.errors import RunError, Stopped
from toy_task import ADAMW, ANSWERS, INPUTS, MUON, SGD, ToyBatch, ToyTask, plan_of, run


def weights(task):
    return torch.cat([parameter.detach().flatten() for parameter in task.model.parameters()])


def test_passes_that_are_accumulated_make_the_same_step_as_one():
    whole, parts = ToyTask(dropout=0), ToyTask(dropout=0)
    run(whole, plan_of(5, 8, 8))
    run(parts, plan_of(5, 8, 2))
    torch.testing.assert_close(weights(parts), weights(whole), atol=1e-5, rtol=1e-5)


def test_a_last_incomplete_group_is_a_step_of_the_mean_over_its_images():
    task, plan = ToyTask(dropout=0), plan_of(2, 8, 2, SGD)
    batches = [ToyBatch(torch.arange(start, start + 2)) for start in range(0, 8, 2)]
    batches += [ToyBatch(torch.tensor([8, 9])), ToyBatch(torch.tensor([10]))]
    train(
        task,
        lambda start: iter(batches[start * 4 :]),
        plan=plan,
        optimizer=SGD,
        config=toy_task.CPU,
        world=World(),
        folder=None,
        facts={},
    )
    by_hand = ToyTask(dropout=0).model
    for step, index in enumerate((torch.arange(8), torch.tensor([8, 9, 10]))):
        by_hand.zero_grad()
        (by_hand(INPUTS[index]) - ANSWERS[index]).square().mean().backward()
        for parameter in by_hand.parameters():
            parameter.data -= plan.learning_rate(step) * parameter.grad
    expected = torch.cat([parameter.detach().flatten() for parameter in by_hand.parameters()])
    torch.testing.assert_close(weights(task), expected)


def test_gradients_are_clipped_to_their_largest_norm(tmp_path):
    task = ToyTask(dropout=0)
    before = weights(task)
    plan = plan_of(1, optimizer=SGD)
    outcome = run(task, plan, tmp_path / "run", optimizer=replace(SGD, clip=0.01))
    assert outcome.record["gradient_norm"] > 0.1
    assert float((weights(task) - before).norm()) == pytest.approx(plan.lr * 0.01, rel=1e-3)


def test_the_average_of_the_weights_by_hand(tmp_path):
    task = ToyTask(dropout=0)
    expected = torch.zeros_like(weights(task))
    outcome = run(task, plan_of(3), tmp_path / "run", ema=0.15, checkpoint_every=1, keep=3)
    for step in range(3):
        tensors = storage.read_tensors(tmp_path / "run" / "checkpoints" / f"step-{step + 1}" / "model.safetensors")
        then = torch.cat([tensors[name].flatten() for name, _ in task.model.named_parameters()])
        expected = 0.15 * expected + 0.85 * then
    expected = expected / (1 - 0.15**3)  # 0.15 is shorter than any run needs, so it is taken as it is
    averaged = torch.cat([outcome.averaged[name].flatten() for name, _ in task.model.named_parameters()])
    torch.testing.assert_close(averaged, expected)


@pytest.mark.parametrize("optimizer", [ADAMW, MUON], ids=lambda config: config.name)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_learns_on_a_cpu(precision, optimizer, tmp_path):
    quick = replace(optimizer, lr=0.05)
    run(ToyTask(), plan_of(60, optimizer=quick), tmp_path / "run", optimizer=quick, precision=precision)
    losses = [record["loss"] for record in metrics.read(tmp_path / "run" / "metrics.jsonl")]
    assert len(losses) == 60
    assert sum(losses[-8:]) < 0.5 * sum(losses[:8])


def test_recorded_lines(tmp_path):
    run(ToyTask(), plan_of(4), tmp_path / "run", evaluate_every=2, ema=0.9)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    always = {"step", "epoch", "loss", "lr", "gradient_norm", "images_per_second", "waiting", "half"}
    assert records[0].keys() == always
    assert records[1].keys() == always | {"val_error", "val_error_ema"}
    assert records[3]["epoch"] == 4 * 8 / 64
    assert records[0]["lr"] == 1e-2
    assert all(record["half"] == pytest.approx(record["loss"] / 2) for record in records)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_saves_and_a_resumed_run_has_the_same_history(number, tmp_path):
    run(ToyTask(), plan_of(12), tmp_path / "whole", ema=0.9)
    with pytest.raises(Stopped, match=f"stopped by {number.name} after saving step 5"):
        run(ToyTask(signals={35: number}), plan_of(12), tmp_path / "run", ema=0.9)
    run(ToyTask(), plan_of(12), tmp_path / "run", ema=0.9, resume=True)
    for name in ("model", "optimizer", "ema"):
        files = [tmp_path / run / "checkpoints" / "step-12" / f"{name}.safetensors" for run in ("whole", "run")]
        assert files[0].read_bytes() == files[1].read_bytes()
    losses = [[r["loss"] for r in metrics.read(tmp_path / run / "metrics.jsonl")] for run in ("whole", "run")]
    assert losses[0] == losses[1]


def test_a_signal_is_obeyed_between_passes_and_the_step_it_cut_short_leaves_no_trace(tmp_path, capfd):
    plan = plan_of(6, batch_size=16, micro_batch=4)
    run(ToyTask(), plan, tmp_path / "whole")
    with pytest.raises(Stopped, match="after saving step 2"):  # 36 is seen in the second of step 2's four passes
        run(ToyTask(signals={36: signal.SIGTERM}), plan, tmp_path / "run")
    assert "SIGTERM: saves after the pass that is under way" in capfd.readouterr().err
    run(ToyTask(), plan, tmp_path / "run", resume=True)
    for name in ("model", "optimizer"):
        files = [tmp_path / run / "checkpoints" / "step-6" / f"{name}.safetensors" for run in ("whole", "run")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_signal_in_the_first_step_saves_what_the_run_began_with(tmp_path):
    plan = plan_of(6, batch_size=16, micro_batch=4)
    with pytest.raises(Stopped, match="after saving step 0") as stopped:
        run(ToyTask(signals={0: signal.SIGUSR1}), plan, tmp_path / "run")
    assert stopped.value.run == str(tmp_path / "run")
    run(ToyTask(), plan, tmp_path / "whole")
    run(ToyTask(), plan, tmp_path / "run", resume=True)
    files = [tmp_path / run / "checkpoints" / "step-6" / "model.safetensors" for run in ("whole", "run")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("optimizer", [SGD, ADAMW, MUON, replace(ADAMW, name="lars")], ids=lambda config: config.name)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_going_on_from_a_checkpoint_changes_nothing(optimizer, precision, tmp_path):
    options = {"optimizer": optimizer, "precision": precision, "checkpoint_every": 5}
    run(ToyTask(), plan_of(9), tmp_path / "whole", **options)
    run(ToyTask(), plan_of(9), tmp_path / "run", **options)
    (tmp_path / "run" / "checkpoints" / "step-9" / "manifest.json").unlink()
    run(ToyTask(), plan_of(9), tmp_path / "run", resume=True, **options)
    for name in ("model", "optimizer"):
        files = [tmp_path / run / "checkpoints" / "step-9" / f"{name}.safetensors" for run in ("whole", "run")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    run(ToyTask(), plan_of(10), tmp_path / "run", checkpoint_every=2, keep=3)
    kept = sorted(folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-10", "step-6", "step-8"]


def test_a_complete_run_is_not_trained_further(tmp_path):
    run(ToyTask(), plan_of(3), tmp_path / "run")
    task = ToyTask()
    outcome = run(task, plan_of(3), tmp_path / "run", resume=True)
    assert outcome.step == 3
    assert outcome.record["step"] == 3
    assert len(metrics.read(tmp_path / "run" / "metrics.jsonl")) == 3


def test_a_checkpoint_of_another_model_is_refused_in_one_line(tmp_path):
    run(ToyTask(), plan_of(3), tmp_path / "run")
    task = ToyTask()
    task.model = nn.Sequential(nn.Linear(6, 4), nn.GELU(), nn.Linear(4, 1))
    with pytest.raises(RunError, match="step-3: is of another model"):
        run(task, plan_of(3), tmp_path / "run", resume=True)
