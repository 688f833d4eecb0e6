"""Strangers' pictures, decoded in a process of its own."""

import os
import signal
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from served import picture

from maekit.app.decoding import View, kind_of
from maekit.app.reading import Reader
from maekit.errors import ImageError

SMALL = View(3, None, (32, 32), 1.0)
GREY = View(1, None, (16, 24), 0.875)
MANY = View(5, None, (32, 32), 1.0)


def png(width, height, data=b""):
    """A PNG that says it is so large."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_each_model_sees_what_it_would_see_here(reader, kind):
    data = picture(kind)
    small, grey = reader.read(data, [SMALL, GREY])
    assert torch.equal(small, SMALL.of(data))
    assert torch.equal(grey, GREY.of(data))
    assert (small.shape, grey.shape) == ((3, 32, 32), (1, 16, 24))


def test_a_range_makes_floats_of_it_and_a_view_that_cannot_be_says_why(reader):
    ranged, none = reader.read(picture(), [View(3, (0.0, 510.0), (32, 32), 1.0), MANY])
    assert ranged.dtype == torch.float32
    assert 0.4 < float(ranged.max()) <= 0.5
    assert "cannot hold 5 channels" in str(none)
    with pytest.raises(ImageError, match="cannot hold 5 channels"):
        reader.read(picture(), [MANY])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        b"<!doctype html><script>alert(1)</script>",
        picture("GIF"),
        picture("TIFF"),
        b"\x93NUMPY\x01\x00",
        b"%PDF-1.4",
        b"II*\x00",
    ],
)
def test_other_kinds_are_known_by_their_content_and_never_decoded(data):
    with pytest.raises(ImageError, match="no JPEG, PNG or WebP"):
        kind_of(data)
    unborn = Reader()
    with pytest.raises(ImageError, match="no JPEG, PNG or WebP"):
        unborn.read(data, [SMALL])
    assert unborn._process is None


def test_bombs_are_refused_and_the_next_picture_is_read(reader):
    bombs = (png(40_000, 40_000), png(30_000, 30_000, bytes(1 << 24)), png(8_000, 8_000, bytes(1 << 20)))
    before = _resident()
    for bomb in bombs:
        began = time.monotonic()
        with pytest.raises(ImageError):
            reader.read(bomb, [SMALL])
        assert time.monotonic() - began < 12
    assert _resident() - before < 200_000_000
    assert reader.read(picture(), [SMALL])[0].shape == (3, 32, 32)


@pytest.mark.parametrize(
    "data", [picture()[:300], picture("JPEG")[:400], picture("WEBP")[:200], b"\xff\xd8\xff", png(9, 9)]
)
def test_damaged_pictures_are_refused_in_a_line(reader, data):
    with pytest.raises(ImageError) as caught:
        reader.read(data, [SMALL])
    assert 5 < len(str(caught.value)) < 200


def test_what_would_take_too_much_memory_or_time_costs_its_own_fork_alone(reader):
    reader.read(picture(), [SMALL])
    process = reader._process.pid
    with pytest.raises(ImageError, match="memory"):
        reader.read(picture(), [View(3, None, (30_000, 30_000), 1.0)])
    assert reader.read(picture(), [SMALL])[0].shape == (3, 32, 32)
    assert reader._process.pid == process


def test_a_process_that_is_gone_is_started_anew(reader):
    reader.read(picture(), [SMALL])
    reader._process.kill()
    reader._process.wait()
    assert reader.read(picture(), [SMALL])[0].shape == (3, 32, 32)


def test_a_fork_that_dies_is_an_answer(monkeypatch):
    from maekit.app import decoding

    monkeypatch.setattr(decoding, "answer", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    said = decoding._in_a_fork([SMALL, GREY], b"")
    assert said.count(b"more time or memory") == 2


def _resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_samples_and_arrays_of_any_channels_are_shown():
    from maekit.app import samples

    for view in (SMALL, GREY, MANY):
        for name in samples.SAMPLES:
            image = samples.of(name, view)
            assert (image.dtype, tuple(image.shape)) == (torch.uint8, (view.channels, *view.image_hw))
            assert np.std(image.numpy()) > 10
