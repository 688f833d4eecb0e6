"""The running average while it stands in for the weights."""

import contextlib

import torch
from torch import nn

from maekit.engine.ema import Ema
from toy_task import ToyTask, plan_of, run


def test_judging_the_average_leaves_the_weights_as_they_were(tmp_path):
    judged, unjudged = ToyTask(), ToyTask()
    outcome = run(judged, plan_of(6), tmp_path / "run", ema=0.5, evaluate_every=1)
    run(unjudged, plan_of(6), ema=0.5)
    for one, other in zip(judged.model.parameters(), unjudged.model.parameters(), strict=True):
        assert torch.equal(one, other)
    record = outcome.record
    judged.model.eval()
    with torch.no_grad():
        assert judged.evaluate()["val_error"] == record["val_error"]
        judged.model.load_state_dict(outcome.averaged)
        assert judged.evaluate()["val_error"] == record["val_error_ema"]
    assert record["val_error"] != record["val_error_ema"]


def test_weights_come_back_when_judging_fails():
    model = nn.Linear(2, 2)
    average, before = Ema(model, 0.9), model.weight.detach().clone()
    with torch.no_grad():
        model.weight += 1
    with contextlib.suppress(ZeroDivisionError), average.in_place():
        assert torch.equal(model.weight, before)
        raise ZeroDivisionError
    assert torch.equal(model.weight, before + 1)


def test_frozen_weights_and_buffers_are_the_models_own():
    model = nn.BatchNorm1d(2)
    model.bias.requires_grad_(False)
    average = Ema(model, 0.9)
    with torch.no_grad():
        model.bias += 1
        model.running_mean += 1
    assert torch.equal(average.state_dict()["bias"], torch.ones(2))
    assert torch.equal(average.state_dict()["running_mean"], torch.ones(2))
