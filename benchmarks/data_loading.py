"""Images per second on one core, from files to augmented training images: maekit's path beside torchvision's usual one.

    python benchmarks/data_loading.py --data photos --image-size 224 --rounds 7
    python benchmarks/data_loading.py --data photos --megapixels 12 --images 16

The peer is `ImageFolder`'s way: Pillow, then torchvision v1's RandomResizedCrop, RandomHorizontalFlip, ToTensor and
Normalize. All read the same files in the same order, in one process with one thread, in turn, several rounds; seconds
are the process's own (CPU), as cores may be shared. The last column leaves the system's part out: where each image
takes tens of megabytes anew, as Pillow's do, their pages are most of it, and it depends on what the allocator kept.
maekit's path ends in uint8, which it standardises on the device; its row with that step added is the like-for-like one.
Packed: what `maekit pack` made of the files beforehand.

--megapixels: the files are made larger first, by Lanczos to so many pixels of 4:3, with noise of three grey levels as a
camera's sensor adds, and written as JPEG of quality 90.

The second table: how far crops of fewer pixels (`--data.decode reduced`) are from those of all, in grey levels, and
beside it how far the same crops of all pixels are from themselves written as JPEG of quality 90, and resampled by the
other filter.
"""

import argparse
import io
import os
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image
from results import write_result
from torch import Tensor
from torchvision import transforms

import maekit
from maekit.config import AugmentConfig
from maekit.data.decode import decode, decode_reduced
from maekit.data.reduced import Reduced
from maekit.data.sources import Source, find_source
from maekit.data.sources.source import evenly_spread
from maekit.data.transforms import TrainTransform
from maekit.models.standardise import Standardise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
QUALITY, NOISE = 90, 3
PEER = "Pillow + torchvision v1"
Read = Callable[[int], bytes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="SOURCE of files on disk")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, help="so many of them, evenly spread")
    parser.add_argument("--megapixels", type=float, help="make them so large first")
    parser.add_argument("--short-side", type=int, default=256, help="of the packed ones")
    parser.add_argument("--beside", default="nothing that is known of", help="what else ran meanwhile")
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    source = find_source(options.data)
    with TemporaryDirectory() as folder:
        paths = [source.path(index) for index in evenly_spread(len(source), options.images).tolist()]
        if options.megapixels:
            paths = [str(_enlarged(path, options.megapixels, Path(folder))) for path in paths]
        packed = maekit.pack(paths, out=f"{folder}/packed", short_side=options.short_side, workers=0)
        ways = _ways(paths, find_source(packed.out), options.image_size)
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for way in ways.values():  # files into the page cache
            way(0)
        for turn in range(options.rounds):
            for name, way in ways.items():
                began = resource.getrusage(resource.RUSAGE_SELF)
                way(turn + 1)
                ended = resource.getrusage(resource.RUSAGE_SELF)
                seconds[name].append((ended.ru_utime - began.ru_utime, ended.ru_stime - began.ru_stime))
        lines = _rates(seconds, paths, options)
        lines += ["", *_differences([Path(path).read_bytes() for path in paths], options.image_size)]
        lines += ["", f"Packing: {packed.bytes_before / 1e6:.1f} MB before, {packed.bytes / 1e6:.1f} MB after."]
    theme = f"data_loading_{options.megapixels:g}mp" if options.megapixels else "data_loading"
    write_result(theme, "cpu", lines, options.out)


def _enlarged(path: str, megapixels: float, folder: Path) -> Path:
    """A photograph as a camera of so many megapixels would have written it."""
    with Image.open(path) as image:
        longer, shorter = (round((megapixels * 1e6 * ratio) ** 0.5) for ratio in (4 / 3, 3 / 4))
        size = (longer, shorter) if image.width >= image.height else (shorter, longer)
        pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.LANCZOS), dtype=np.float32)
    noise = np.random.default_rng(0).normal(0, NOISE, pixels.shape).astype(np.float32)
    out = folder / f"{Path(path).stem}.jpg"
    Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(out, quality=QUALITY)
    return out


def _ways(paths: list[str], packed: Source, size: int) -> dict[str, Callable[[int], None]]:
    transform, standardise = TrainTransform(AugmentConfig(), (size, size)), Standardise(MEAN, STD)
    theirs = transforms.Compose([
        transforms.RandomResizedCrop(size, scale=(0.2, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ])  # fmt: skip

    def file(index: int) -> bytes:
        return Path(paths[index]).read_bytes()

    def decoded(read: Read, _: int) -> None:
        for index in range(len(paths)):
            decode(read(index), 3)

    def full(read: Read, turn: int) -> None:
        for index in range(len(paths)):
            transform(decode(read(index), 3), 0, turn, index, 0)

    def reduced(read: Read, after: Callable[[Tensor], object], turn: int) -> None:
        for index in range(len(paths)):
            key = (0, turn, index, 0)
            after(transform(decode_reduced(read(index), 3, partial(transform.factor, [key])), *key)[None])

    def torchvision(_: int) -> None:
        for path in paths:
            with open(path, "rb") as opened:  # noqa: PTH123 - as ImageFolder's loader does it
                theirs(Image.open(opened).convert("RGB"))

    return {
        PEER: torchvision,
        "maekit, all pixels decoded and nothing more": partial(decoded, file),
        "maekit, full": partial(full, file),
        "maekit, reduced (default)": partial(reduced, file, len),
        "the same, standardised": partial(reduced, file, standardise),
        "maekit, packed": partial(reduced, packed.read, len),
    }


def _rates(seconds: dict[str, list[tuple[float, float]]], paths: list[str], options: argparse.Namespace) -> list[str]:
    kilopixels = []
    for path in paths:
        with Image.open(path) as image:
            kilopixels.append(image.width * image.height / 1000)
    made = f", made of smaller ones with noise, JPEG of quality {QUALITY}" if options.megapixels else ""
    peer = _medians(seconds[PEER])
    lines = [
        f"{len(paths)} files of {median(kilopixels):,.0f} kilopixels (median){made}, to {options.image_size} px; one "
        f"core, CPU seconds, {options.rounds} rounds in turn. Packed at a shorter side of {options.short_side} px. "
        f"Beside it: {options.beside}.",
        "",
        "| path | images/s, median (quartiles) | against the peer | by user seconds alone |",
        "|---|---|---|---|",
    ]
    for name, values in seconds.items():
        low, _, high = quantiles(map(sum, values), n=4)
        own = _medians(values)
        rates = len(paths) / own[0], len(paths) / high, len(paths) / low
        ratios = f"{peer[0] / own[0]:.2f} | {peer[1] / own[1]:.2f}"
        lines.append(f"| {name} | {rates[0]:.0f} ({rates[1]:.0f} to {rates[2]:.0f}) | {ratios} |")
    return lines


def _medians(seconds: list[tuple[float, float]]) -> tuple[float, float]:
    """Of user and system together, and of user alone."""
    return median(map(sum, seconds)), median(user for user, _ in seconds)


def _differences(files: list[bytes], size: int) -> list[str]:
    """Mean absolute differences over crops of which fewer pixels are decoded, two of each file."""
    bicubic, bilinear = (
        TrainTransform(AugmentConfig(interpolation=name), (size, size)) for name in ("bicubic", "bilinear")
    )
    found: dict[str, list[float]] = {}
    for index, data in enumerate(files):
        whole = decode(data, 3)
        for turn in range(2):
            key = (0, turn, index, 0)
            fewer = decode_reduced(data, 3, partial(bicubic.factor, [key]))
            if not isinstance(fewer, Reduced):
                continue
            crop = bicubic(whole, *key)
            for name, other in (
                (f"1/{fewer.reduction.factor} of the pixels each way", bicubic(fewer, *key)),
                ("(JPEG of quality 90 of the crop)", _through_jpeg(crop)),
                ("(bilinear, not bicubic)", bilinear(whole, *key)),
            ):
                found.setdefault(name, []).append(float((crop.float() - other.float()).abs().mean()))
    if not found:
        return ["No crop is of fewer pixels: no file is large enough for it to pay."]
    rows = [f"| {name} | {len(v)} | {np.mean(v):.2f} | {np.quantile(v, 0.9):.2f} | {max(v):.2f} |"
            for name, v in sorted(found.items(), key=lambda item: (item[0][0] == "(", item[0]))]  # fmt: skip
    head = "| mean absolute difference, grey levels | crops | mean | 90th percentile | worst |"
    return [head, "|---|---|---|---|---|", *rows]


def _through_jpeg(crop: Tensor) -> Tensor:
    buffer = io.BytesIO()
    Image.fromarray(crop.permute(1, 2, 0).contiguous().numpy()).save(buffer, "JPEG", quality=QUALITY)
    return decode(buffer.getvalue(), 3)


if __name__ == "__main__":
    main()
