"""Runs in numbers: steps, batches, the learning rate's course."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maekit import presets
from maekit.config import OptimizerConfig, ScheduleConfig
from maekit.engine.schedule import Plan
from maekit.errors import RunError, UsageError

LR = OptimizerConfig(lr=1.0)


def test_rates_by_hand():
    plan = Plan.of(LR, ScheduleConfig(steps=10, epochs=10, batch_size=4, warmup_epochs=4, min_lr=0.2), images=4)
    assert plan.warmup_steps == 4
    warmup = [0, 0.25, 0.5, 0.75]
    cosine = [0.2 + 0.8 * (1 + math.cos(math.pi * share)) / 2 for share in (0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6)]
    assert [plan.learning_rate(step) for step in range(10)] == pytest.approx(warmup + cosine)
    assert plan.learning_rate(10) == pytest.approx(0.2)


def test_a_course_of_steps_falls_at_its_milestones():
    schedule = ScheduleConfig(
        epochs=10, batch_size=4, warmup_epochs=2, course="step", milestones=(5, 8), gamma=0.1, min_lr=0.5
    )
    plan = Plan.of(LR, schedule, images=4)
    assert [plan.learning_rate(step) for step in range(10)] == pytest.approx(
        [0, 0.5, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01]
    )
    shorter = Plan.of(LR, replace(schedule, steps=20), images=4)
    assert shorter.milestones == (10, 16)
    assert Plan.of(LR, replace(schedule, milestones=(50,)), images=4).milestones == (10,)


def test_a_course_of_steps_without_milestones_is_refused():
    with pytest.raises(UsageError, match="at which epochs does the rate fall"):
        Plan.of(LR, ScheduleConfig(steps=10, batch_size=4, course="step"), images=4)


def test_the_papers_run_over_imagenet():
    preset = presets.PRETRAIN["vit-base"]()
    plan = Plan.of(preset.optimizer, preset.schedule, images=1_281_167, world_size=8)
    assert plan.lr == pytest.approx(2.4e-3)
    assert plan.base_lr == pytest.approx(1.5e-4)
    assert plan.steps == math.ceil(800 * 1_281_167 / 4096)
    assert plan.warmup_steps / plan.steps == pytest.approx(40 / 800, rel=1e-3)
    assert (plan.micro_batch, plan.accumulation) == (256, 2)
    assert plan.epoch(plan.steps) == pytest.approx(800, abs=4096 / 1_281_167)


def test_an_early_cosine_by_hand():
    """The angle counts from the run's start, over the steps without the warmup: below its peak at first, up at last."""
    schedule = ScheduleConfig(epochs=10, batch_size=4, warmup_epochs=2, course="early_cosine")
    plan = Plan.of(LR, schedule, images=4)
    cosine = [(1 + math.cos(math.pi * step / 8)) / 2 for step in range(2, 10)]
    assert [plan.learning_rate(step) for step in range(10)] == pytest.approx([0.5 + 1e-6, 1 + 1e-6, *cosine])
    assert plan.highest_rate == pytest.approx(1 + 1e-6)
    assert plan.learning_rate(9) > plan.learning_rate(8) == pytest.approx(0)
    assert Plan.of(LR, replace(schedule, warmup_epochs=0), images=4).learning_rate(0) == 1


@pytest.mark.parametrize(("course", "fall"), [("cooldown", math.sqrt), ("linear_cooldown", float)])
def test_a_cooldown_by_hand(course, fall):
    schedule = ScheduleConfig(epochs=10, batch_size=4, warmup_epochs=2, course=course, cooldown=0.4, min_lr=0.5)
    plan = Plan.of(LR, schedule, images=4)
    assert plan.level_until == 6
    expected = [0, 0.5, 1, 1, 1, 1, *(1 - fall(share) for share in (0, 0.25, 0.5, 0.75))]
    assert [plan.learning_rate(step) for step in range(10)] == pytest.approx(expected)
    assert plan.learning_rate(10) == 0


@given(steps=st.integers(2, 300), shorter=st.integers(2, 300), share=st.floats(0.01, 1), warmup=st.floats(0, 20))
def test_runs_of_all_lengths_begin_alike(steps, shorter, share, warmup):
    """Until the shorter one's cooldown, which never begins in its warmup: so one run's checkpoints serve all."""
    schedule = ScheduleConfig(epochs=1, batch_size=4, course="cooldown", cooldown=share, warmup_epochs=warmup)
    try:
        one, other = (Plan.of(LR, replace(schedule, epochs=n), images=4) for n in (steps, shorter))
    except UsageError:  # no step with a rate
        return
    if warmup >= min(steps, shorter):  # it ends with its run
        return
    alike = min(one.level_until, other.level_until, one.steps, other.steps)
    assert [one.learning_rate(step) for step in range(alike)] == [other.learning_rate(step) for step in range(alike)]
    assert one.level_until >= one.warmup_steps
    rates = [one.learning_rate(step) for step in range(one.steps + 1)]
    assert max(rates) == 1.0
    assert rates[-1] == (1 if one.level_until == one.steps else 0)


def test_flyegles_rate_is_absolute():
    preset = presets.PRETRAIN["vit-base-flyegle"]()
    assert Plan.of(preset.optimizer, preset.schedule, images=10_000).lr == 1.2e-3


@pytest.mark.parametrize(
    "schedule",
    [
        ScheduleConfig(epochs=1, batch_size=4096, warmup_epochs=5),  # one step, at the rate a warmup begins with
        ScheduleConfig(steps=1, epochs=10, batch_size=4, warmup_epochs=10),
    ],
)
def test_a_run_in_which_no_step_can_have_a_rate_above_zero_is_refused(schedule):
    with pytest.raises(UsageError, match="no step of this run would have a learning rate above 0"):
        Plan.of(LR, schedule, images=6)


def test_the_highest_rate_is_what_a_step_has():
    whole = Plan.of(LR, ScheduleConfig(steps=10, epochs=10, batch_size=4, warmup_epochs=4), images=4)
    assert whole.highest_rate == max(map(whole.learning_rate, range(10))) == whole.lr
    warmup = Plan.of(LR, ScheduleConfig(epochs=3, batch_size=4, warmup_epochs=5), images=4)
    assert warmup.highest_rate == max(map(warmup.learning_rate, range(3))) < warmup.lr


@given(steps=st.integers(2, 500), warmup=st.floats(0, 800))
def test_warmup_keeps_its_share_of_a_run_of_other_length(steps, warmup):
    schedule = ScheduleConfig(epochs=800, steps=steps, batch_size=64, warmup_epochs=warmup)
    plan = Plan.of(LR, schedule, images=1000)
    assert plan.steps == steps
    assert abs(plan.warmup_steps - steps * warmup / 800) <= 0.5


def test_a_base_rate_grows_with_the_batch_and_an_absolute_one_does_not():
    for batch, expected in ((256, 0.1), (1024, 0.4)):
        schedule = ScheduleConfig(steps=1, batch_size=batch)
        assert Plan.of(OptimizerConfig(base_lr=0.1), schedule, images=10).lr == pytest.approx(expected)
        assert Plan.of(OptimizerConfig(base_lr=0.1, lr=0.3), schedule, images=10).lr == 0.3


@given(batch=st.integers(1, 300), limit=st.integers(1, 64), world=st.integers(1, 4))
def test_the_micro_batch_is_the_largest_divisor_that_fits(batch, limit, world):
    schedule = ScheduleConfig(steps=1, batch_size=batch * world, micro_batch_limit=limit)
    plan = Plan.of(LR, schedule, images=10, world_size=world)
    assert plan.micro_batch == max(d for d in range(1, min(batch, limit) + 1) if batch % d == 0)
    assert plan.accumulation * plan.micro_batch * world == batch * world


@pytest.mark.parametrize(
    ("schedule", "world", "error", "words"),
    [
        (ScheduleConfig(steps=0), 1, UsageError, "no optimizer step"),
        (ScheduleConfig(), 1, UsageError, "neither --epochs nor --steps"),
        (
            ScheduleConfig(steps=1, batch_size=9),
            2,
            RunError,
            "9 images do not divide over 2 devices; take a multiple of 2, such as 8 or 10",
        ),
        (ScheduleConfig(steps=1, batch_size=8, micro_batch_size=3), 1, RunError, "not a multiple of 3; take a divisor"),
    ],
)
def test_runs_that_cannot_be_are_refused(schedule, world, error, words):
    with pytest.raises(error, match=words):
        Plan.of(LR, schedule, images=100, world_size=world)


def test_a_run_without_a_rate_is_refused():
    with pytest.raises(UsageError, match="neither --lr nor --base-lr"):
        Plan.of(OptimizerConfig(), ScheduleConfig(steps=1), images=100)
