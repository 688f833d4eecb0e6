"""Decodes strangers' pictures in a process that holds nothing else: `python -m maekit.app.decoding`.

It reads requests from standard input and answers on standard output, one after the other. Each picture is decoded in a
fork of its own that may take so much memory and time and write no file; whatever a decoder does to it, the next picture
finds a process that has seen none.
"""

import contextlib
import io
import json
import os
import signal
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from maekit.data.decode import decode
from maekit.data.transforms import EvalTransform
from maekit.errors import ImageError

MEMORY = 1_500_000_000  # bytes beyond what the process has when it begins
SECONDS = 10
MAX_PIXELS = 1 << 26

_LENGTHS = struct.Struct(">QQ")
_KINDS = {"JPEG": (b"\xff\xd8\xff", 0), "PNG": (b"\x89PNG\r\n\x1a\n", 0), "WebP": (b"WEBP", 8)}


@dataclass(frozen=True)
class View:
    """How a model sees an image: decoded to so many channels, in this range, at this size, so much of it."""

    channels: int
    value_range: tuple[float, float] | None
    image_hw: tuple[int, int]
    crop_share: float

    def of(self, data: Any, max_pixels: int = MAX_PIXELS) -> torch.Tensor:
        """[C, H, W]; data and errors as of `maekit.data.decode.decode`."""
        image = decode(data, self.channels, max_pixels=max_pixels, value_range=self.value_range)
        return EvalTransform(self.image_hw, self.crop_share)(image)


def kind_of(data: bytes) -> str:
    """JPEG, PNG or WebP, by its first bytes. ImageError for anything else, whatever it is called."""
    for kind, (magic, place) in _KINDS.items():
        if data[place : place + len(magic)] == magic:
            return kind
    raise ImageError("this is no JPEG, PNG or WebP picture")


def send(to: IO[bytes], words: Any, data: bytes = b"") -> None:
    """One message: JSON, then bytes."""
    head = json.dumps(words).encode()
    to.write(_LENGTHS.pack(len(head), len(data)) + head + data)
    to.flush()


def receive(origin: IO[bytes]) -> tuple[Any, bytes]:
    """What `send` sent. EOFError where no more comes."""
    lengths = origin.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        raise EOFError
    head, data = (origin.read(length) for length in _LENGTHS.unpack(lengths))
    return json.loads(head), data


def answer(views: Sequence[View], data: bytes) -> bytes:
    """The message that answers: of each view {shape, dtype} and its bytes, or {error}."""
    said: list[dict[str, Any]] = []
    arrays = []
    for view in views:
        try:
            kind_of(data)
            array = view.of(data).contiguous().numpy()
        except ImageError as error:
            said.append({"error": str(error)})
        else:
            said.append({"shape": array.shape, "dtype": str(array.dtype)})
            arrays.append(array.tobytes())
    written = io.BytesIO()
    send(written, said, b"".join(arrays))
    return written.getvalue()


def _limit() -> None:
    """What a picture may take."""
    import resource

    with contextlib.suppress(FileNotFoundError, OSError, ValueError):  # Linux alone counts so
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    signal.alarm(SECONDS)


def _in_a_fork(views: Sequence[View], data: bytes) -> bytes:
    """`answer`, of a child that ends with it; without one where it did not live to give it."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(reading)
            _limit()
            with open(writing, "wb") as to:  # noqa: PTH123 - a descriptor
                to.write(answer(views, data))
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as origin:  # noqa: PTH123
        said = origin.read()
    _, status = os.waitpid(child, 0)
    if status == 0:
        return said
    written = io.BytesIO()
    send(written, [{"error": "takes more time or memory to decode than a picture may"}] * len(views))
    return written.getvalue()


def main() -> None:
    """Answer until no more is asked."""
    torch.set_num_threads(1)  # a fork has none of its parent's threads
    source, to = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    work = _in_a_fork if hasattr(os, "fork") else answer
    send(to, "ready")
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while True:
            words, data = receive(source)
            views = [
                View(w["channels"], w["value_range"] and tuple(w["value_range"]), tuple(w["image_hw"]), w["crop_share"])
                for w in words
            ]
            to.write(work(views, data))
            to.flush()


if __name__ == "__main__":
    main()
