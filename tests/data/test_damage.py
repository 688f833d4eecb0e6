"""Files that still decode although pixels were lost are refused; harmless oddities are not."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maekit.data import decode as module
from maekit.data.decode import decode
from maekit.errors import ImageError

END = b"\xff\xd9"


def encode(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """As much detail as a photograph has."""
    draw = np.random.default_rng(0)
    coarse = Image.fromarray(draw.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(
        (256, 192), Image.Resampling.BICUBIC
    )
    return Image.fromarray(
        np.clip(np.asarray(coarse).astype(int) + draw.normal(0, 9, (192, 256, 3)), 0, 255).astype(np.uint8)
    )


def readable(data: bytes, channels: int = 3) -> bool:
    try:
        return decode(data, channels) is not None
    except ImageError:
        return False


def overwritten(data: bytes, new: bytes, share: float = 0.5) -> bytes:
    at = int(len(data) * share)
    return data[:at] + new + data[at + len(new) :]


FORMS: dict[str, dict[str, Any]] = {
    "plain": {"quality": 85}, "progressive": {"progressive": True}, "restarts": {"restart_marker_rows": 1},
    "optimised": {"optimize": True, "subsampling": "4:4:4"},
}  # fmt: skip
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "early end": lambda data: data[: len(data) // 2] + END,
    "late end": lambda data: data[: len(data) * 97 // 100] + END,
    "overwritten": lambda data: overwritten(data, np.random.default_rng(0).bytes(256)),
    "hole": lambda data: overwritten(data, bytes(1024)),
    "filled with zeros": lambda data: overwritten(data, bytes(len(data) - len(data) // 2)),
    "cut": lambda data: data[: len(data) // 2],
    "without an end": lambda data: data[:-2],
}
HARMLESS: dict[str, Callable[[bytes], bytes]] = {
    "whole": lambda data: data,
    "bytes after the end": lambda data: data + b"made by a camera" * 9,
    "a second end": lambda data: data + END,
    "padding before the end": lambda data: data[:-2] + bytes(40) + END,
    "a byte before the end": lambda data: data[:-2] + b"\x37" + END,
    "unknown segment": lambda data: data[:2] + b"\xff\xe9\0\x06abcd" + data[2:],
    "bytes between segments": lambda data: data[:20] + bytes(5) + data[20:],
    "revision": lambda data: data.replace(b"JFIF\0\x01", b"JFIF\0\x09", 1),
    "broken profile": lambda data: data[:20] + b"\xff\xe2\0\x14ICC_PROFILE\0\x09\x02abcd" + data[20:],
    "odd Adobe": lambda data: data[:20] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x07" + data[20:],
}


@pytest.mark.parametrize("form", FORMS)
class TestJpeg:
    @pytest.mark.parametrize("damage", DAMAGE)
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_lost_pixels_are_noticed(self, photo: Image.Image, form: str, damage: str, channels: int) -> None:
        data = DAMAGE[damage](encode(photo, **FORMS[form]))
        with pytest.raises(ImageError, match=r"truncated|damaged|broken|[Uu]nsupported|marker"):
            decode(data, channels)

    @pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
    @pytest.mark.parametrize("oddity", HARMLESS)
    def test_oddities_are_passed_over(
        self, photo: Image.Image, form: str, oddity: str, mode: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if mode == "CMYK" and oddity in ("odd Adobe", "bytes between segments", "broken profile"):
            pytest.skip("a CMYK file begins otherwise")
        data = HARMLESS[oddity](encode(photo.convert(mode), **{**FORMS[form], "subsampling": "4:4:4"}))
        assert readable(data)
        monkeypatch.setattr(module, "simplejpeg", None)
        assert readable(data)

    @pytest.mark.parametrize("damage", ["filled with zeros", "cut", "without an end"])
    def test_pillow_alone_agrees_on_early_ends(
        self, photo: Image.Image, form: str, damage: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "simplejpeg", None)
        assert not readable(DAMAGE[damage](encode(photo, **FORMS[form])))

    def test_a_damaged_cmyk_jpeg_is_noticed(self, photo: Image.Image, form: str) -> None:
        assert not readable(DAMAGE["early end"](encode(photo.convert("CMYK"), **FORMS[form])))


@pytest.mark.parametrize("colour", ["white", "black", (12, 200, 30)])
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}, {"quality": 1}])
def test_flat_images_have_no_holes(colour: Any, options: dict[str, Any]) -> None:
    for mode in ("RGB", "L", "CMYK"):
        assert readable(encode(Image.new("RGB", (900, 700), colour).convert(mode), **options))


def test_zeros_in_headers_are_no_hole(photo: Image.Image) -> None:
    assert readable(encode(photo, comment=bytes(500)))


class TestPng:
    def test_a_flipped_bit_is_noticed(self, photo: Image.Image) -> None:
        data = bytearray(encode(photo, "PNG", compress_level=0))
        data[len(data) // 2] ^= 1
        with pytest.raises(ImageError, match="checksum"):
            decode(bytes(data), 3)

    def test_bytes_after_the_end_are_passed_over(self, photo: Image.Image) -> None:
        assert readable(encode(photo, "PNG") + b"trailing")

    @pytest.mark.parametrize(("kind", "samples"), [(2, 3), (6, 4), (4, 2)])
    def test_sixteen_bits_of_colour_are_kept(self, kind: int, samples: int) -> None:
        values = np.random.default_rng(0).integers(0, 4096, (5, 7, samples), dtype=np.uint16)

        def chunk(name: bytes, content: bytes) -> bytes:
            return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        header = struct.pack(">IIBBBBB", 7, 5, 16, kind, 0, 0, 0)
        data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        image = decode(data, 4, value_range=(0, 4095)).permute(1, 2, 0).numpy()
        colours = 1 if samples == 2 else 3
        assert image[..., :colours] == pytest.approx(values[..., :colours] / 4095, abs=1e-6)
        alpha = values[..., -1] / 65535 if samples != 3 else 1
        assert image[..., 3] == pytest.approx(np.broadcast_to(alpha, (5, 7)), abs=1e-6)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "WEBP", "PPM"])
def test_short_files_are_refused(photo: Image.Image, kind: str) -> None:
    data = encode(photo.quantize(64) if kind == "GIF" else photo, kind)
    assert readable(data + b"trailing")
    for share in (0.3, 0.7, 0.98):
        assert not readable(data[: int(len(data) * share)])


def test_a_gif_that_ends_early_is_refused(photo: Image.Image) -> None:
    data = encode(photo.quantize(64), "GIF")
    assert not readable(data[: len(data) // 2] + b"\0;")


def test_fixtures_are_photographs(photos: Path) -> None:
    assert all(readable(file.read_bytes()) for file in photos.rglob("*.*"))
