"""Images that are broken, odd, enormous or hostile: named and passed over, shown right, refused cheaply, survived."""

import io
import logging
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maekit.config import AugmentConfig, DataConfig
from maekit.data.decode import decode
from maekit.data.loader import BadImages, eval_batches, stack, train_batches
from maekit.data.sources import open_source


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def one_bit_png(width: int, height: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def waves(height: int = 48, width: int = 64) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    values = np.stack([np.sin(rows / 5 + columns / (7 + channel)) for channel in range(3)], -1)
    return Image.fromarray(((values + 1) * 127).astype(np.uint8))


BROKEN = {
    "truncated.jpg": encode(waves(), "JPEG")[:700],
    "empty.png": b"",
    "text.png": b"This is not a picture.\n",
    "short idat.png": one_bit_png(64, 64, zlib.compress(b"\0" * 20)),
    "cut short.gif": b"GIF89a",
}


class TestOneBadImageDoesNotStopTraining:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_it_is_skipped_counted_logged_and_replaced(
        self, tmp_path: Path, workers: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        for number in range(20):
            (tmp_path / f"good {number}.jpg").write_bytes(encode(waves(), "PNG" if number % 2 else "JPEG"))
        for name, data in BROKEN.items():
            (tmp_path / name).write_bytes(data)
        lines = [file.name for file in sorted(tmp_path.iterdir())] + ["a, missing one.jpg"]
        (tmp_path / "list.txt").write_text("\n".join(lines))
        source = open_source(str(tmp_path / "list.txt"))
        config, bad = DataConfig(workers=workers), BadImages(source, 0.01)
        with caplog.at_level(logging.WARNING, logger="maekit"):
            batches = list(
                train_batches(
                    source, config, AugmentConfig(), image_hw=(16, 16), channels=3, seed=0, batch_size=13,
                    micro_batch=13, start_step=0, total_steps=4, rank=0, world_size=1, bad=bad,
                )
            )  # fmt: skip
        assert [len(batch) for batch in batches] == [13] * 4
        assert {Path(path).name for path, _ in bad.found()} == {*BROKEN, "a, missing one.jpg"}
        assert len(caplog.records) == len(bad) == 6
        shown = {Path(source.path(index)).name for batch in batches for index in batch.indices.tolist()}
        assert all(name.startswith("good") for name in shown)


class TestOddImagesDecodeRight:
    def test_training_and_evaluation_show_what_decoding_gives(self, tmp_path: Path) -> None:
        transparent = Image.new("RGBA", (32, 32), (0, 0, 255, 0))
        exif = Image.Exif()
        exif[0x0112] = 6
        half = waves(32, 32)
        half.paste("white", (0, 0, 32, 16))
        files = {
            "cmyk.jpg": encode(waves(32, 32).convert("CMYK"), "JPEG"),
            "grey.png": encode(Image.new("L", (32, 32), 90), "PNG"),
            "palette.gif": encode(waves(32, 32).quantize(16), "GIF"),
            "rgba.png": encode(transparent, "PNG"),
            "sixteen.png": encode(Image.fromarray(np.full((32, 32), 32768, np.uint16)), "PNG"),
            "turned.jpg": encode(half, "JPEG", exif=exif),
        }
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
        source = open_source(str(tmp_path))
        decoded = [decode(data, 3) for _, data in sorted(files.items())]
        expected = stack(decoded)  # in [0, 1], as one of them has 16 bits
        plain, bad = AugmentConfig(crop="none", flip=0.0), BadImages(source, 0.0)
        (trained,) = train_batches(
            source, DataConfig(workers=0, shuffle=False), plain, image_hw=(32, 32), channels=3, seed=0, batch_size=6,
            micro_batch=6, start_step=0, total_steps=1, rank=0, world_size=1, bad=bad,
        )  # fmt: skip
        (evaluated,) = eval_batches(
            source, indices=None, image_hw=(32, 32), channels=3, crop_share=1.0, batch_size=6, workers=0, bad=bad
        )
        assert torch.equal(trained.images, expected)
        assert torch.equal(evaluated.images, expected)
        by_name = dict(zip(sorted(files), decoded, strict=True))
        assert by_name["grey.png"].unique().tolist() == [90]
        assert by_name["rgba.png"].unique().tolist() == [255]
        assert abs(float(by_name["sixteen.png"].max()) * 255 - 128) <= 1
        assert by_name["turned.jpg"][:, :, -8:].float().mean() > 250  # the white half is right after a quarter turn
        assert (by_name["cmyk.jpg"].int() - decode(encode(waves(32, 32), "PNG"), 3).int()).abs().float().mean() < 10


DECODE_ALL = """
import resource, sys
from pathlib import Path
from maekit.data.decode import decode
from maekit.errors import ImageError
for file in Path(sys.argv[1]).glob("warm-up.*"):
    decode(file.read_bytes(), 3)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for file in sorted(Path(sys.argv[1]).glob("bomb.*")):
    try:
        print(file.name, tuple(decode(file.read_bytes(), 6 if file.suffix in (".npy", ".tif6") else 3).shape))
    except ImageError as error:
        print(file.name, "refused:", error)
print("growth", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts other units elsewhere")
def test_bombs_are_cheap(tmp_path: Path) -> None:
    frame = encode(Image.new("P", (2500, 2500), 3), "GIF")
    start = frame.index(b",")  # the first image block; the last byte ends the file
    zeros = zlib.compressobj(1)
    compressed = b"".join(zeros.compress(bytes(5001 * 1000)) for _ in range(40)) + zeros.flush()
    jpeg = bytearray(encode(waves(), "JPEG"))
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = struct.pack(">HH", 65000, 65000)
    tiff_entries = [(256, 4, 60_000), (257, 4, 60_000), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8),
                    (277, 3, 6), (278, 4, 60_000), (279, 4, 4)]  # fmt: skip
    tiff = b"II*\0" + struct.pack("<IH", 8, len(tiff_entries))
    tiff += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tiff_entries) + b"\0" * 4
    just_allowed = tiff.replace(struct.pack("<I", 60_000), struct.pack("<I", 10_000))
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (60000, 60000, 6), }".ljust(117) + "\n"
    files = {
        "bomb.png": one_bit_png(40_000, 40_000, compressed),
        "bomb.gif": b"GIF89a" + struct.pack("<HHBBB", 20_000, 20_000, 0, 0, 0) + b","
        + struct.pack("<HHHHB", 0, 0, 20_000, 20_000, 0) + b"\x02\x02\x4c\x01\x00\x3b" + b"\0" * 5,
        "bomb.frames": frame[:start] + frame[start:-1] * 200 + b";",
        "bomb.jpg": bytes(jpeg),
        "bomb.tif": tiff,
        "bomb.tif6": tiff,
        "bomb.just-allowed.tif6": just_allowed,
        "bomb.npy": b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode(),
        "warm-up.png": encode(waves(), "PNG"),
        "warm-up.jpg": encode(waves(), "JPEG"),
    }  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-W", "ignore", "-c", DECODE_ALL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    outcome = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert int(outcome.pop("growth")) < 200
    assert outcome.pop("bomb.frames") == "(3, 2500, 2500)"
    assert len(outcome) == 7
    assert all(result.startswith("refused: ") for result in outcome.values()), outcome
