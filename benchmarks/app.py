"""The page of `maekit app`: how long people wait for it, over untrained ViTs of the paper's sizes.

    python benchmarks/app.py --rounds 20 --threads 2

A server on loopback, asked as the page asks: for a mask, a reconstruction (224 px, 0.75 hidden), features, the picture
to save, and with a photograph of 12 megapixels to upload. Seconds from the question to the whole answer, and the
server's own of the processor.
"""

import argparse
import http.client
import io
import json
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
import uvicorn
from PIL import Image
from results import write_result

from maekit import presets
from maekit.app.guards import Guard
from maekit.app.reading import Reader
from maekit.app.server import listening, names, opened
from maekit.config.verbs import AppOptions
from maekit.models import mae
from maekit.weights import native

SIZES = ("vit-tiny", "vit-base")


def untrained(name: str, folder: Path) -> str:
    """Weights of a preset as it begins."""
    config = presets.PRETRAIN[name]()
    path = folder / f"{name}.safetensors"
    model = mae.build(config.model, config.target, config.mask, mean=(0.5,) * 3, std=(0.5,) * 3, seed=0)
    native.save(model, path)
    return str(path)


def photograph() -> bytes:
    """A JPEG of 4000 x 3000 px that is neither smooth nor noise."""
    rows, columns = np.mgrid[0:3000, 0:4000].astype(np.float32)
    waves = [np.sin(rows / (9 + c)) + np.sin(columns / (40 - c) + rows / 70) for c in range(3)]
    written = io.BytesIO()
    Image.fromarray(((np.stack(waves, -1) + 2) * 63).astype(np.uint8)).save(written, "JPEG", quality=90)
    return written.getvalue()


def asked(port: int, path: str, body: bytes) -> None:
    """One question and its whole answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    if answer.status != 200:
        raise SystemExit(f"{path}: {said!r}")


def timed(work: Callable[[], None], rounds: int) -> tuple[str, str]:
    """Seconds, and those of the processor, of the median round; quartiles of the first."""
    work()
    work()
    seconds, processor = [], []
    for _ in range(rounds):
        began, used = time.perf_counter(), time.process_time()
        work()
        seconds.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
    low, _, high = quantiles(seconds, n=4)
    return f"{median(seconds):.3f} ({low:.3f} to {high:.3f})", f"{median(processor):.3f}"


def rows(port: int, weights: int, rounds: int, picture: bytes) -> list[list[str]]:
    """What is asked of one of the weights."""
    unit = np.random.default_rng(0).permutation(196) < 147
    seen: dict[str, Any] = {"weights": weights, "image": "sample:boat"}
    masked = {**seen, "masked": "".join(str(int(one)) for one in unit), "grid": [14, 14]}
    questions = {
        "mask": {"weights": weights, "kind": "random", "ratio": 0.75, "seed": 1},
        "reconstruct": masked,
        "features": seen,
        "picture": masked,
    }
    found = []
    for what, words in questions.items():
        body = json.dumps(words).encode()
        found.append([SIZES[weights], what, *timed(lambda w=what, b=body: asked(port, f"/api/{w}", b), rounds)])
    if weights == 0:
        number = iter(range(1 << 30))  # a picture that is known already is not decoded again
        upload = lambda: asked(port, "/api/images", picture + str(next(number)).encode())  # noqa: E731
        found.append(["all", "upload, 12 megapixels", *timed(upload, max(4, rounds // 4))])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--beside", default="nothing else")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder, listening("127.0.0.1", 0) as listener, Reader() as reader:
        weights = tuple(untrained(name, Path(folder)) for name in SIZES)
        page = opened(AppOptions(weights=weights, device="cpu"), reader)
        port = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(Guard(page.app(), names(port)), log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        picture = photograph()
        table = [row for number in range(len(SIZES)) for row in rows(port, number, options.rounds, picture)]
        server.should_exit = True
        thread.join()
    lines = [
        f"{options.threads} threads, {options.rounds} rounds after two that are not counted; beside it: "
        f"{options.beside}. The processor's seconds are those of server and asker, without the process that decodes.",
        "",
        "| weights | asked for | seconds (quartiles) | of the processor |",
        "|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in table),
    ]
    write_result("app", "cpu", lines)


if __name__ == "__main__":
    main()
