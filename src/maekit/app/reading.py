"""Strangers' pictures as models see them, by a process of its own that decodes them."""

import math
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from maekit.app.decoding import SECONDS, View, kind_of, receive, send
from maekit.errors import ImageError

_PATIENCE = SECONDS + 20.0  # in which it has to answer; it ends its own forks sooner


class Reader:
    """Holds the process, which is started when it is needed, and anew where it is gone. `read` waits for its turn."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin to start the process, where there is none: its imports take seconds."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            path = os.pathsep.join(filter(None, sys.path))
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "maekit.app.decoding"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is for who asks
            )  # fmt: skip
            self._ready = False

    def read(self, data: bytes, views: Sequence[View]) -> list[Tensor | ImageError]:
        """The image [C, H, W] as each view shows it, or why it cannot. Raises ImageError where none can."""
        kind_of(data)
        with self._turn:
            said, body = self._ask(data, views)
        images: list[Tensor | ImageError] = []
        place = 0
        for one in said:
            if "error" in one:
                images.append(ImageError(one["error"]))
                continue
            dtype = np.dtype(one["dtype"])
            size = math.prod(one["shape"]) * dtype.itemsize
            array = np.frombuffer(body[place : place + size], dtype).reshape(one["shape"])
            images.append(torch.from_numpy(array.copy()))
            place += size
        errors = [image for image in images if isinstance(image, ImageError)]
        if len(errors) == len(images):
            raise errors[0]
        return images

    def _ask(self, data: bytes, views: Sequence[View]) -> tuple[list[dict[str, Any]], bytes]:
        self.start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if not self._ready:
                receive(process.stdout)
                self._ready = True
            late = threading.Timer(_PATIENCE, process.kill)
            late.start()
            try:
                send(process.stdin, [asdict(view) for view in views], data)
                said: tuple[list[dict[str, Any]], bytes] = receive(process.stdout)
            finally:
                late.cancel()
        except (EOFError, OSError, ValueError):
            self.close()
            raise ImageError("the process that decodes pictures died of this one") from None
        return said

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()
