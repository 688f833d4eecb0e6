"""`maekit app` as a command: where it listens, what it says, and what it is told that cannot be."""

import logging
import socket
import sys
import threading
import urllib.request

import pytest
from served import classifies, painter

from maekit.app import server
from maekit.app.reading import Reader
from maekit.config.verbs import AppOptions
from maekit.errors import MaekitError, RunError, UsageError


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return painter(tmp_path_factory.mktemp("weights") / "w.safetensors")


def test_it_serves_this_machine_alone_if_not_told_otherwise(weights):
    options = AppOptions(weights=weights)
    assert options.host == "127.0.0.1"
    with server.listening(options.host, 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
    assert server.names(8765) == {"127.0.0.1:8765", "localhost:8765", "[::1]:8765"}


def test_it_says_where_it_is_answers_and_ends(weights, caplog):
    heard = []

    def visit():
        with urllib.request.urlopen(heard[0]) as page:
            heard.append(page.read())

    class Told(logging.Handler):
        def emit(self, record):
            said = record.getMessage()
            if said.startswith("the page: "):
                heard.append(said.split()[2])
                threading.Timer(0.2, visit).start()

    handler = Told()
    logging.getLogger("maekit").addHandler(handler)
    with caplog.at_level(logging.INFO, "maekit"):
        said = server.serve(AppOptions(weights=weights, port=0, seconds=2.0, device="cpu"))
    logging.getLogger("maekit").removeHandler(handler)
    assert heard[0] == said.url
    assert b"maekit" in heard[1]
    assert said.seconds >= 1
    assert "was served" in str(said)


def test_elsewhere_it_asks_for_a_token_and_warns(weights, caplog, monkeypatch):
    seen = []
    monkeypatch.setattr(server, "_run", lambda one, *_: seen.append(one.config.app))
    with caplog.at_level(logging.INFO, "maekit"):
        server.serve(AppOptions(weights=weights, host="0.0.0.0", port=0, device="cpu"))
    warning, place = caplog.messages[-2:]
    assert "nothing on the way is encrypted" in warning
    token = place.split("token=")[1].split()[0]
    assert len(token) >= 32
    assert (seen[0]._token, seen[0]._hosts) == (token, None)


def test_a_port_in_use_is_said(weights):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RunError, match=rf"--port {port}: is in use.*take another"):
            server.serve(AppOptions(weights=weights, port=port))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"host": "no.such.host.invalid"}, "--host no.such.host.invalid: is no address"),
        ({"host": "192.0.2.1"}, "--host 192.0.2.1: is no address of this machine"),
        ({"weights": "nowhere"}, "nowhere"),
        ({"gallery": "nowhere"}, "nowhere: no such file or folder"),
    ],
)
def test_what_cannot_be_is_a_line(weights, options, said):
    with pytest.raises(MaekitError) as caught:
        server.serve(AppOptions(**{"weights": weights, "port": 0, "device": "cpu", **options}))
    assert said in str(caught.value)


def test_a_gallery_without_readable_images_is_a_line(weights, tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_text("no picture")
    with pytest.raises(MaekitError, match="none of its 3 images can be read"):
        server.serve(AppOptions(weights=weights, port=0, device="cpu", gallery=str(tmp_path)))


def test_weights_that_paint_nothing_are_served_and_say_so(tmp_path):
    page = server.opened(AppOptions(weights=classifies(tmp_path / "c.safetensors"), device="cpu"), Reader())
    assert "it has no decoder" in page._exhibits[0].describe()["why_not"]


def test_without_fastapi_the_extra_is_named(weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(UsageError, match=r"pip install 'maekit\[app\]'"):
        server.serve(AppOptions(weights=weights, port=0))


def test_options_that_nothing_heeds_are_refused(maekit_here):
    done = maekit_here("app", "w", "--gallery-images", 5)
    assert done.returncode == 2
    assert "--gallery-images: of which images? give --gallery SOURCE" in done.stderr
    assert maekit_here("app", "w", "--port", 70000).returncode == 2
