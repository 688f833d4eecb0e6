"""What strangers try on the page: all is refused, or answered, and the next picture works."""

import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from served import HALF_HIDDEN, patiently, picture, reconstruct

from maekit.app import images


def head(path, port, length):
    """How a request begins."""
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {length}\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
        (b"<html><script>alert(1)</script>", 415),
        (b"", 415),
        (picture("GIF"), 415),
        (picture()[:200], 415),
        (b"--x\r\nContent-Disposition: form-data; name=f; filename=../../x.png\r\n\r\n\x89PNG\r\n--x--", 415),
    ],
)
def test_what_is_no_picture_is_refused_in_a_line(site, data, status):
    for kind in ("image/png", "multipart/form-data; boundary=x"):
        answer = site.ask("POST", "/api/images", data, content_type=kind)
        assert answer.status == status
        assert 5 < len(answer.said["message"]) < 200
    assert site.upload(picture()).status == 200


def test_what_is_too_large_is_refused_before_it_is_sent(site):
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as connection:
        connection.sendall(head("/api/images", site.port, 20_000_001))
        answer = connection.makefile("rb").read()
    assert b" 413 " in answer
    assert b"20 MB" in answer


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml", "/page/../images.py", "/page/..%2fimages.py", "/page/%2e%2e/x.py", "/page/main.js/..",
        "/page//etc/passwd", "/api/thumbnails/../../etc/passwd", "/api/thumbnails/gallery:-1", "/docs", "/openapi.json",
        "/api/thumbnails/gallery:999", "/api/thumbnails/sample:nothing", "/api/thumbnails/..%2f..%2fx", "/api/images",
    ],
)  # fmt: skip
def test_no_name_leads_to_a_file(site, path):
    answer = site.get(path)
    assert answer.status in (404, 405)
    assert b"import" not in answer.body


@pytest.mark.parametrize(
    "words",
    [
        {"masked": "2" * 16}, {"masked": "1" * 16}, {"masked": "0" * 16}, {"masked": "10"}, {"masked": "1" * 70_000},
        {"grid": [4, -4]}, {"grid": [1 << 40, 4]}, {"grid": "4"}, {"statistics": "guess"}, {"weights": 9},
        {"weights": 2}, {"bands": [0, 1]}, {"bands": [0] * 9}, {"image": "gone"}, {"image": "x" * 500},
        {"planes": 0}, {"more": 1},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_a_line(site, image, words):
    if words == {"bands": [0, 1]}:  # three channels are shown as they are
        assert reconstruct(site, image=image, **words).status == 200
        return
    answer = reconstruct(site, **{"image": image, **words})
    assert answer.status in (404, 422)
    assert 5 < len(answer.said["message"]) < 200


def test_fifty_at_once_are_answered_or_told_to_wait(site, image):
    words = {"weights": 0, "image": image, "masked": HALF_HIDDEN, "grid": [4, 4]}

    def ask(number):
        return site.upload(picture(seed=number)) if number % 2 else site.post("/api/reconstruct", **words)

    before = _resident()
    with ThreadPoolExecutor(50) as pool:
        statuses = {answer.status for answer in pool.map(ask, range(50))}
    assert 200 in statuses
    assert statuses <= {200, 503}
    assert _resident() - before < 200_000_000
    assert patiently(lambda: reconstruct(site, image=image)).status == 200


def test_clients_that_leave_and_slow_ones_hold_nobody_up(site, image):
    words = json.dumps({"weights": 0, "image": image, "masked": HALF_HIDDEN, "grid": [4, 4]}).encode()
    for body, path in ((words, "/api/reconstruct"), (picture(), "/api/images")):
        for sent in (len(body), len(body) // 2, 0):
            for _ in range(5):
                with socket.create_connection(("127.0.0.1", site.port)) as connection:
                    connection.sendall(head(path, site.port, len(body)) + body[:sent])
    assert patiently(lambda: site.upload(picture())).status == 200
    slow = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(8)]
    for connection in slow:
        connection.sendall(head("/api/images", site.port, 9000) + b"x")
    assert patiently(lambda: site.upload(picture())).status == 200
    assert patiently(lambda: reconstruct(site, image=image)).status == 200
    slow[0].settimeout(10)
    assert b" 408 " in slow[0].recv(4096)
    for connection in slow:
        connection.close()


def test_uploads_are_held_in_memory_alone_and_only_so_many(site, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(images, "_HELD", 4)
    here = Path.cwd()
    before, opened = {*here.iterdir()}, _open()
    first = site.upload(picture(seed=90)).said["image"]
    for seed in range(91, 95):
        assert site.upload(picture(seed=seed)).status == 200
    gone = reconstruct(site, image=first)
    assert (gone.status, gone.said["unknown"]) == (404, True)
    assert {*here.iterdir()} == before
    assert not [*tmp_path.iterdir()]
    assert _open() <= opened


def _open():
    """What this process has open, sockets and pipes aside."""
    found = (_target(path) for path in Path("/proc/self/fd").iterdir())
    return {path for path in found if path.startswith("/")}


def _target(path):
    try:
        return os.readlink(path)  # noqa: PTH115 - what it points to has no path
    except OSError:
        return ""


def _resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
