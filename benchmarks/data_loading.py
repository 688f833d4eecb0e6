"""Images per second on one core, from files to augmented training images: maekit's path beside torchvision's usual one.

    python benchmarks/data_loading.py --data photos --image-size 224 --rounds 7

The peer is `ImageFolder`'s way: Pillow, then torchvision v1's RandomResizedCrop, RandomHorizontalFlip, ToTensor and
Normalize. Both read the same files in the same order, in one process with one thread, in turn, several rounds. maekit's
path ends in uint8, which it standardises on the device; its row with that step added is the like-for-like one.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from PIL import Image
from results import write_result
from torchvision import transforms

from maekit.config import AugmentConfig
from maekit.data.decode import decode
from maekit.data.sources import open_source
from maekit.data.transforms import TrainTransform
from maekit.models.standardise import Standardise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="SOURCE of files on disk")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    source = open_source(options.data)
    paths = [source.path(index) for index in range(len(source))]
    ways = _ways(paths, options.image_size)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():  # files into the page cache
        way(0)
    for turn in range(options.rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way(turn + 1)
            seconds[name].append(time.perf_counter() - began)
    write_result("data_loading", "cpu", _lines(seconds, paths, options.image_size), options.out)


def _ways(paths: list[str], size: int) -> dict[str, Callable[[int], None]]:
    ours = TrainTransform(AugmentConfig(), (size, size))
    standardise = Standardise(MEAN, STD)
    theirs = transforms.Compose([
        transforms.RandomResizedCrop(size, scale=(0.2, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ])  # fmt: skip

    def maekit(turn: int) -> None:
        for index, path in enumerate(paths):
            ours(decode(Path(path).read_bytes(), 3), 0, turn, index, 0)

    def maekit_standardised(turn: int) -> None:
        for index, path in enumerate(paths):
            standardise(ours(decode(Path(path).read_bytes(), 3), 0, turn, index, 0)[None])

    def torchvision(_: int) -> None:
        for path in paths:
            with open(path, "rb") as file:  # noqa: PTH123 - as ImageFolder's loader does it
                theirs(Image.open(file).convert("RGB"))

    return {"maekit": maekit, "maekit, standardised": maekit_standardised, "Pillow + torchvision v1": torchvision}


def _lines(seconds: dict[str, list[float]], paths: list[str], size: int) -> list[str]:
    kilopixels = []
    for path in paths:
        with Image.open(path) as image:
            kilopixels.append(image.width * image.height / 1000)
    peer = median(seconds["Pillow + torchvision v1"])
    lines = [
        f"{len(paths)} files of {median(kilopixels):.0f} kilopixels (median) to {size} px, one core.",
        "",
        "| path | images/s, median (quartiles) | against the peer |",
        "|---|---|---|",
    ]
    for name, values in seconds.items():
        low, _, high = quantiles(values, n=4)
        rates = len(paths) / median(values), len(paths) / high, len(paths) / low
        lines.append(f"| {name} | {rates[0]:.0f} ({rates[1]:.0f} to {rates[2]:.0f}) | {peer / median(values):.2f} |")
    return lines


if __name__ == "__main__":
    main()
