"""`maekit watch`: the report of a run while it goes on."""

import http.client
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from maekit import presets
from maekit.app.watch import Made, watch
from maekit.config.files import to_dict
from maekit.config.verbs import WatchOptions
from maekit.errors import RunError


def log_step(run: Path, step: int) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "epoch": 0.1, "loss": 1 / step, "lr": 0.1}) + "\n")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "a <b> run"
    folder.mkdir()
    config = {"config": to_dict(presets.PRETRAIN["digits"]()), "computed": {"steps": 40}}
    (folder / "config.json").write_text(json.dumps(config))
    log_step(folder, 1)
    return folder


@contextmanager
def served(run: Path) -> Iterator[tuple[int, list[Exception], threading.Thread]]:
    """(port, what it raised, its thread) of a page that is served for some seconds."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    raised: list[Exception] = []

    def serve() -> None:
        try:
            watch(WatchOptions(run=str(run), port=port, seconds=4))
        except RunError as error:
            raised.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield port, raised, thread
    thread.join()


def ask(port: int, path: str = "/", **headers: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), answer.headers["content-security-policy"]


def test_it_follows_the_run_and_answers_to_this_machine_alone(run: Path):
    with served(run) as (port, raised, _):
        status, page, policy = ask(port)
        assert status == 200
        assert "a &lt;b&gt; run: step 1 of 40" in page
        assert '<meta http-equiv="refresh" content="5">' in page
        assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"
        log_step(run, 2)
        assert "step 2 of 40" in ask(port)[1]
        assert ask(port, Host="evil.example")[0] == 421
        assert ask(port, "/config.json")[0] == ask(port, "/../../etc/passwd")[0] == 404
        (run / "report.html").write_text("the report")
        assert ask(port)[1] == "the report"
        log_step(run, 3)  # it goes on, so the report is old
        later = time.time() + 5
        os.utime(run / "metrics.jsonl", (later, later))
        assert "step 3 of 40" in ask(port)[1]
    assert not raised


def test_a_folder_that_goes_ends_it_in_one_line(run: Path):
    with served(run) as (port, raised, thread):
        assert ask(port)[0] == 200
        shutil.rmtree(run)
        thread.join(3)
        assert not thread.is_alive()
    assert [str(error) for error in raised] == [f"{run}: is gone; nothing is left to watch"]


def test_a_history_that_stands_still_is_drawn_once(run: Path, monkeypatch: pytest.MonkeyPatch):
    made = Made(run)
    first = made.page()
    monkeypatch.setattr(Made, "_live", lambda _: b"drawn again")
    assert made.page() is first
    log_step(run, 2)
    assert made.page() == b"drawn again"


def test_a_port_in_use_and_a_folder_without_a_run_are_one_line(run: Path, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(RunError, match="is in use"):
        watch(WatchOptions(run=str(run), port=taken.getsockname()[1], seconds=1))
    with pytest.raises(RunError, match=r"config\.json: cannot be read"):
        watch(WatchOptions(run=str(tmp_path / "none"), port=0, seconds=1))
