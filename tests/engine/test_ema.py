"""The running average while it stands in for the weights."""

import contextlib

import pytest
import torch
from torch import nn

from maekit.engine.ema import Ema, fitting_decay
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


def test_a_part_is_averaged_alone():
    model = nn.ModuleDict({"encoder": nn.Linear(2, 2), "decoder": nn.Linear(2, 2)})
    average = Ema(model, 0.5, part="encoder.")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    with average.in_place():
        assert torch.equal(model["encoder"].weight, before["encoder.weight"])
        assert torch.equal(model["decoder"].weight, before["decoder.weight"] + 1)
    assert torch.equal(model["encoder"].weight, before["encoder.weight"] + 1)
    assert average.state_dict().keys() == {"encoder.weight", "encoder.bias"}


def weights_of_steps(decay, steps):
    """What share of the average each step's weights have at the end of a run, the initial weights first."""
    shares = []
    for place in range(steps + 1):
        model = nn.Linear(1, 1, bias=False).double()
        with torch.no_grad():
            model.weight.fill_(float(place == 0))
            average = Ema(model, decay, steps)
            for step in range(steps):
                model.weight.fill_(float(place == step + 1))
                average.update(step)
        shares.append(float(average.state_dict()["weight"]))
    return shares


@pytest.mark.parametrize("steps", [40, 120])
@pytest.mark.parametrize("decay", [0.5, 0.9999])
def test_an_average_is_of_the_runs_last_sixth_or_shorter(decay, steps):
    shares = weights_of_steps(decay, steps)
    assert sum(shares) == pytest.approx(1)
    assert shares[0] == 0, "the initial weights"
    assert sum(shares[: steps // 2 + 1]) < 0.06, "what was before the middle"
    assert shares[-1] < 0.6, "the last weights alone"
    if decay > 0.9:
        assert 0.3 < sum(shares[-steps // 6 :]) < 0.75, "the last sixth"


def test_the_start_does_not_bind_to_the_end():
    """In the second half of the shortest run each step's weights enter with the share of the decay in force."""
    decay, steps = 0.9999, 60
    shares = weights_of_steps(decay, steps)
    ratios = [shares[step] / shares[step + 1] for step in range(steps // 2, steps)]
    assert ratios == pytest.approx([fitting_decay(decay, steps)] * len(ratios))
    assert shares[-1] == pytest.approx(1 - fitting_decay(decay, steps), rel=0.01)


@pytest.mark.parametrize(("steps", "used"), [(93_750, 0.9999), (62_500, 0.9999), (600, 0.99), (60, 0.9), (6, 0.8)])
def test_published_lengths_keep_their_decay_and_shorter_runs_take_what_fits(steps, used):
    assert fitting_decay(0.9999, steps) == pytest.approx(used)
    assert fitting_decay(0.5, steps) == 0.5


def test_a_decay_that_does_not_fit_is_said(caplog):
    with caplog.at_level("INFO", "maekit"):
        Ema(nn.Linear(1, 1), 0.99, 6000)
        assert not caplog.text
        Ema(nn.Linear(1, 1), 0.9999, 600)
    assert "remembers 10000 steps, too many for a run of 600: 0.99 is used, which remembers 100" in caplog.text
