"""What a person sees of a run that has no terminal."""

import logging
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from maekit.engine import progress


def record(step, **more):
    return {"step": step, "epoch": step / 4, "loss": 0.5, "lr": 1e-3, "images_per_second": 123.4, **more}


@pytest.fixture
def lines(monkeypatch):
    """Messages of the maekit log, and a clock to set."""
    said, clock = [], [100.0]
    handler = logging.Handler()
    handler.emit = lambda message: said.append(message.getMessage())
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    progress.log.addHandler(handler)
    progress.log.setLevel(logging.INFO)
    yield said, clock
    progress.log.removeHandler(handler)


def test_a_line_says_how_far_how_good_how_fast_and_how_long_still(lines):
    said, clock = lines
    with progress.meter(100, 0, visible=True) as meter:
        meter.advance(0)
        clock[0] += 60
        meter.advance(25)
        meter.show(record(25, val_knn=0.875))
    assert said == ["step 25/100  epoch 6.25  loss 0.5000  lr 1.00e-03  123 images/s  val_knn 0.875  0:03:00 left"]


def test_lines_come_every_ten_seconds_and_at_the_end(lines):
    said, clock = lines
    with progress.meter(100, 0, visible=True) as meter:
        meter.advance(0)
        for step in range(1, 101):
            clock[0] += 1
            meter.advance(step)
            meter.show(record(step))
    assert [int(line.split()[1].split("/")[0]) for line in said] == [1, *range(11, 100, 10), 100]


def test_other_ranks_are_silent(lines):
    said, _ = lines
    with progress.meter(2, 0, visible=False) as meter:
        meter.advance(1)
        meter.show(record(2))
    assert said == []


class Output:
    """ipywidgets' place for what is shown."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def clear_output(self, wait=False):
        pass

    def close(self):
        pass


def test_a_notebook_shows_bars_where_it_can_draw_them_and_else_lines(lines, monkeypatch, capsys):
    said, _ = lines
    shown = []
    monkeypatch.setattr(progress, "_console", Console(stderr=True, force_jupyter=True))
    monkeypatch.setattr(progress, "find_spec", lambda _: None)
    with progress.meter(2, 0, visible=True) as meter:
        meter.show(record(2))
    assert len(said) == 1

    widgets, display = SimpleNamespace(Output=Output), SimpleNamespace(display=lambda *what, **_: shown.append(what))
    for name, module in {"ipywidgets": widgets, "IPython": SimpleNamespace(), "IPython.display": display}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(progress, "find_spec", sys.modules.get)
    with progress.meter(2, 0, visible=True) as meter:
        meter.show(record(2))
    with progress.counter(10, "images") as count:
        count(4)
    assert len(said) == 1
    assert shown
    assert capsys.readouterr().out == ""
