"""When a run ends because it no longer gets better, by hand."""

import math

import pytest

from maekit.engine.patience import MEASURES, Patience


def spent(values, *, by="rankme", validations=2, since=0, until=None):
    """The answer of a run that was validated every ten steps."""
    key = MEASURES[by].key
    records = [{"step": 10 * number, "loss": 1.0, key: value} for number, value in enumerate(values, 1)]
    patience = Patience(MEASURES[by], validations, since)
    return patience.spent(records, until or 10 * len(values))


def test_it_ends_after_so_many_validations_that_are_no_better_than_the_best():
    assert not spent([1.0, 2.0, 1.9])
    assert spent([1.0, 2.0, 1.9, 2.0]) == "RankMe was at its best at step 20, 2, and not in 2 validations since"
    assert not spent([1.0, 2.0, 1.9, 2.1])
    assert not spent([1.0, 2.0, 1.9, 1.8], validations=3)


@pytest.mark.parametrize(
    ("by", "better", "worse"), [("loss", 0.4, 0.6), ("alpha", 1.1, 0.7), ("alpha", 0.9, 1.4), ("knn", 0.6, 0.4)]
)
def test_each_measure_knows_what_is_better(by, better, worse):
    assert spent([worse, better, worse, worse], by=by)
    assert not spent([worse, worse, better], by=by)


def test_what_was_not_measured_does_not_count():
    assert not spent([2.0, None, None, None])
    assert not spent([2.0, math.nan, 3.0])
    assert not Patience(MEASURES["rankme"], 1).spent([], 0)


def test_it_looks_at_no_record_after_the_step_it_is_asked_for():
    values = [2.0, 1.0, 1.0, 5.0]
    assert spent(values, until=30)
    assert not spent(values, until=20)
    assert not spent([2.0, 1.0, 1.0], until=35)  # between two validations a run goes on


def test_a_branch_has_its_own_patience():
    values = [9.0, 1.0, 1.0, 1.0, 1.0]
    assert spent(values)
    assert not spent(values, since=30)
    branch = Patience.of(2, "rankme", "runs/long/checkpoints/step-30/")
    assert branch == Patience(MEASURES["rankme"], 2, 30)
    assert Patience.of(None, "rankme") is None
