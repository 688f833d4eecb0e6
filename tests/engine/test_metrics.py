"""A run's history: one line a record, cut back where a run goes on, and TensorBoard saying the same."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from maekit.engine import metrics
from maekit.engine.metrics import History
from maekit.errors import StorageError


def write(folder, steps, after_step=0, tensorboard=False):
    history = History(folder, tensorboard=tensorboard, after_step=after_step)
    for step in steps:
        history.write({"step": step, "loss": 1 / step})
    history.close()


def steps_in(folder):
    return [record["step"] for record in metrics.read(folder / "metrics.jsonl")]


def test_what_came_after_the_step_of_a_resumed_run_is_cut_away(tmp_path):
    write(tmp_path, range(1, 10))
    write(tmp_path, [5, 6], after_step=4)
    assert steps_in(tmp_path) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("torn", ['{"step": 4, "lo', '{"step": 4}', "\x00\x00\x00", '{"step": 5}\n{"st'])
def test_a_torn_last_line_is_cut_away(tmp_path, torn):
    write(tmp_path, [1, 2, 3])
    path = tmp_path / "metrics.jsonl"
    with path.open("a") as file:
        file.write(torn)
    write(tmp_path, [4, 5], after_step=3)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4, 5]


@given(count=st.integers(0, 40), step=st.integers(0, 45), width=st.integers(1, 9000))
def test_cutting_back_finds_its_place_in_long_files(tmp_path_factory, count, step, width):
    path = tmp_path_factory.mktemp("cut") / "metrics.jsonl"
    lines = [json.dumps({"step": number, "text": "x" * width}) + "\n" for number in range(1, count + 1)]
    path.write_text("".join(lines))
    last = metrics.last(path)
    assert last.get("step", 0) == count
    metrics.cut_back(path, step)
    assert path.read_text() == "".join(lines[:step])


def test_what_is_not_finite_is_null(tmp_path):
    history = History(tmp_path, tensorboard=False)
    history.write({"step": 1, "loss": float("nan"), "val": float("inf")})
    history.close()
    assert metrics.read(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": None, "val": None}]


def test_tensorboard_tells_one_history(tmp_path):
    write(tmp_path, range(1, 8), tensorboard=True)
    write(tmp_path, [4, 5], after_step=3, tensorboard=True)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [
        (step, pytest.approx(1 / step)) for step in (1, 2, 3, 4, 5)
    ]


def test_a_full_disk_is_told_in_one_line(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    history = History(tmp_path, tensorboard=False)
    with pytest.raises(StorageError, match=r"metrics.jsonl: cannot be written \(No space left"):
        history.write({"step": 1})
    with pytest.raises(StorageError, match="No space left"):
        history.close()
