"""Where time goes: waiting that is counted and told once, the share of the matrix rate, a trace with its summary."""

import gzip
import json
import logging
import time
from itertools import count

import pytest
import torch

import toy_task
from maekit.engine import metrics
from maekit.engine.timing import Timing, matrix_rate

CPU = torch.device("cpu")


def test_waiting_is_counted_between_two_lines_and_told_once(caplog, monkeypatch):
    monkeypatch.setattr("maekit.engine.timing._ENOUGH", 0.03)
    timing = Timing(CPU, None, None, "read faster")

    def slow():
        for number in count():
            time.sleep(0.02)
            yield number

    stream, shares = timing.waiting(slow()), []
    for line in range(3):
        timing.restart(line)
        next(stream)
        time.sleep(0.005)
        shares.append(timing.record(line + 1, 8, 1)["waiting"])
    timing.restart(3)
    time.sleep(0.01)
    assert all(0.4 < share <= 1 for share in shares)
    assert timing.record(4, 8, 1)["waiting"] == 0
    assert [record.message.endswith("of the time: read faster") for record in caplog.records] == [True]


def test_a_few_slow_images_are_no_reason_for_advice(caplog):
    timing = Timing(CPU, None, None, "read faster")
    stream = timing.waiting(time.sleep(0.02) for _ in count())
    for line in range(3):
        timing.restart(line)
        next(stream)
        assert timing.record(line + 1, 8, 1)["waiting"] > 0.2
    assert not caplog.records


def test_mfu_is_of_the_rate_of_a_matrix_product_and_shared_out_among_processes(monkeypatch):
    monkeypatch.setattr("maekit.engine.timing.matrix_rate", lambda *_: 1000.0)
    timing = Timing(CPU, None, 2.0)
    time.sleep(0.01)
    said = timing.record(1, 8, 2)
    assert said["mfu"] == pytest.approx(said["images_per_second"] / 2 * 2.0 / 1000.0, abs=1e-4)
    assert "mfu" not in Timing(CPU, None, None).record(1, 8, 1)


def test_mfu_is_never_more_than_all_though_the_device_was_busy_when_it_was_measured(monkeypatch):
    measured = iter([1e-3, 1e9, 1e9])
    monkeypatch.setattr("maekit.engine.timing.matrix_rate", lambda *_: next(measured))
    timing = Timing(CPU, None, 2.0)
    time.sleep(0.01)
    assert timing.record(1, 8, 1)["mfu"] < 1e-3  # of what is measured again
    assert timing.record(2, 8, 1)["mfu"] < 1e-3
    assert len(list(measured)) == 1  # once was enough
    measured = iter([1e-3, 1e-3])
    assert Timing(CPU, None, 2.0).record(1, 8, 1)["mfu"] == 1  # busy still: it can do what it did


def test_the_matrix_rate_leaves_the_draws_of_a_run_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert matrix_rate(CPU, torch.bfloat16) > 0
    assert torch.equal(torch.get_rng_state(), before)
    assert matrix_rate(torch.device("meta"), None) is None


@pytest.mark.parametrize("steps", [2, 50])
def test_a_trace_is_of_so_many_steps_and_names_the_dearest_operations(tmp_path, caplog, steps):
    with caplog.at_level(logging.INFO, "maekit"):
        toy_task.run(toy_task.ToyTask(), toy_task.plan_of(9), tmp_path / "run", profile=steps)
    with gzip.open(tmp_path / "run" / "trace.json.gz") as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert any(name and name.startswith("aten::") for name in names)
    said = [record.message for record in caplog.records]
    first = next(number for number, line in enumerate(said) if "of it waiting for images" in line)
    assert said[first].startswith(f"{min(steps, 9 - 3)} steps in ")
    shares = [float(line.split("%")[0]) for line in said[first + 1 : first + 11]]
    assert shares == sorted(shares, reverse=True)
    assert len(metrics.read(tmp_path / "run" / "metrics.jsonl")) == 9


def test_a_run_too_short_for_a_trace_says_so(tmp_path, caplog):
    toy_task.run(toy_task.ToyTask(), toy_task.plan_of(2), tmp_path / "run", profile=5)
    assert "no trace: the run ended before step 3" in caplog.text
    assert not (tmp_path / "run" / "trace.json.gz").exists()
