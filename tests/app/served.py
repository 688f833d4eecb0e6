"""The page over tiny models, served on a free port of this machine, and asked as a program asks."""

import http.client
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import uvicorn
from PIL import Image

import tiny
from maekit.app.guards import Guard
from maekit.app.reading import Reader
from maekit.app.server import listening, names, opened
from maekit.config import ClassifierConfig, MaskConfig, TargetConfig
from maekit.config.verbs import AppOptions
from maekit.models import classifier, mae
from maekit.weights import native

HALF_HIDDEN = "1100" * 4  # of 4 x 4 patches

HALF = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "seed": 0}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> Any:
        return json.loads(self.body)


class Site:
    """A page that is served."""

    def __init__(self, port: int) -> None:
        self.port, self.url = port, f"http://127.0.0.1:{port}"

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)

    def post(self, path: str, **words: Any) -> Answer:
        return self.ask("POST", path, json.dumps(words).encode(), content_type="application/json")

    def upload(self, data: bytes) -> Answer:
        return self.ask("POST", "/api/images", data)


@contextmanager
def served(reader: Reader, seconds: float = 20.0, **options: Any) -> Iterator[Site]:
    """The page over these options. reader: decodes for it. seconds: in which a request has to be there."""
    with listening("127.0.0.1", 0) as listener:
        page = opened(AppOptions(device="cpu", **options), reader)
        port = listener.getsockname()[1]
        guarded = Guard(page.app(), names(port), seconds=seconds)
        server = uvicorn.Server(uvicorn.Config(guarded, log_level="warning", ws="none", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Site(port)
        finally:
            server.should_exit = True
            thread.join(20)


def painter(path: Any, *, target: str = "normalised", mask: MaskConfig | None = None, **changes: Any) -> str:
    """Weights of an untrained masked autoencoder, 32 px in patches of 8 px where nothing else is said."""
    config = tiny.model_config(**{"image_size": 32, "patch_size": 8, "depth": 1, **changes})
    channels = {"mean": (0.5,) * config.channels, "std": (0.5,) * config.channels, "seed": 0}
    native.save(mae.build(config, TargetConfig(kind=target), mask or MaskConfig(), **channels), path)
    return str(path)


def classifies(path: Any) -> str:
    """Weights of an untrained classifier of six classes."""
    config = tiny.model_config(image_size=32, patch_size=8, depth=1)
    classes = ("ant", "bee", "cat", "dog", "eel", "fox")
    native.save(classifier.build(config, ClassifierConfig(pooling="mean"), classes, **HALF), path)
    return str(path)


def picture(kind: str = "PNG", size: tuple[int, int] = (60, 44), seed: int = 0) -> bytes:
    """A smooth picture of any kind that Pillow writes."""
    rows, columns = np.mgrid[0 : size[1], 0 : size[0]]
    waves = [np.sin(rows / (4 + seed + c) + columns / (9 + c)) for c in range(3)]
    written = io.BytesIO()
    Image.fromarray(((np.stack(waves, -1) + 1) * 127.5).astype(np.uint8)).save(written, kind)
    return written.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def reconstruct(site, **words):
    return site.post("/api/reconstruct", **{"weights": 0, "masked": HALF_HIDDEN, "grid": [4, 4], **words})


def patiently(ask):
    """The answer, when those that were busy are done."""
    for _ in range(40):
        answer = ask()
        if answer.status != 503:
            break
        time.sleep(0.1)
    return answer
