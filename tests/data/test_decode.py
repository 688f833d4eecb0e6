"""One policy for every kind of picture: what comes out, pixel by pixel, and what is refused."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, features
from torch import Tensor

from maekit.data import decode as module
from maekit.data.decode import decode
from maekit.errors import ImageError


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def colours(image: Tensor) -> list[list[int]]:
    """Each pixel of the first row."""
    return image[:, 0].T.tolist()  # type: ignore[no-any-return]


def sixteen_bit_png(values: np.ndarray, colour_type: int) -> bytes:
    """A PNG of 16 bits a channel, which Pillow cannot write in colour. values: [H, W, C]."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


PALETTE = Image.new("P", (2, 1))
PALETTE.putpalette([10, 20, 30, 200, 100, 50])
PALETTE.putpixel((1, 0), 1)
SIXTEEN = np.array([[0, 32768, 65535]], dtype=np.uint16)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(encode(Image.new("L", (1, 1), 77)), [[77, 77, 77]], id="grey"),
        pytest.param(encode(Image.new("1", (1, 1), 1)), [[255, 255, 255]], id="bilevel"),
        pytest.param(encode(PALETTE), [[10, 20, 30], [200, 100, 50]], id="palette"),
        pytest.param(encode(PALETTE, transparency=0), [[255, 255, 255], [200, 100, 50]], id="palette with alpha"),
        pytest.param(encode(Image.new("RGBA", (1, 1), (255, 0, 0, 0))), [[255, 255, 255]], id="transparent"),
        pytest.param(encode(Image.new("RGBA", (1, 1), (255, 0, 0, 128))), [[255, 127, 127]], id="half transparent"),
        pytest.param(encode(Image.new("LA", (1, 1), (0, 128))), [[127, 127, 127]], id="grey with alpha"),
        pytest.param(encode(Image.new("RGB", (1, 1), 5), transparency=(5, 0, 0)), [[255, 255, 255]], id="colour key"),
        pytest.param(encode(Image.new("CMYK", (1, 1), (255, 0, 0, 0)), "TIFF"), [[0, 255, 255]], id="CMYK"),
        pytest.param(encode(Image.new("YCbCr", (1, 1), (76, 85, 255)), "TIFF"), [[254, 0, 0]], id="YCbCr"),
        pytest.param(encode(Image.new("RGB", (1, 1), (9, 8, 7)), "WEBP", lossless=True), [[9, 8, 7]], id="WebP"),
        pytest.param(encode(Image.new("RGB", (1, 1), (9, 8, 7)), "BMP"), [[9, 8, 7]], id="BMP"),
        pytest.param(np.array([[[1, 2, 3]]], dtype=np.uint8), [[1, 2, 3]], id="array"),
        pytest.param(np.array([[7]], dtype=np.uint8), [[7, 7, 7]], id="grey array"),
    ],
)
def test_colour_policy(data: bytes | np.ndarray, expected: list[list[int]]) -> None:
    image = decode(data, 3)
    assert (image.dtype, image.shape) == (torch.uint8, (3, 1, len(expected)))
    assert colours(image) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(encode(Image.fromarray(SIXTEEN)), [[0] * 3, [128] * 3, [255] * 3], id="16-bit PNG"),
        pytest.param(encode(Image.fromarray(SIXTEEN), "TIFF"), [[0] * 3, [128] * 3, [255] * 3], id="16-bit TIFF"),
        pytest.param(b"P5 3 1 65535\n" + SIXTEEN.astype(">u2").tobytes(), [[0] * 3, [128] * 3, [255] * 3], id="PGM"),
        pytest.param(sixteen_bit_png(SIXTEEN.reshape(1, 1, 3), 2), [[0, 128, 255]], id="16-bit colour PNG"),
        pytest.param(encode(Image.new("F", (1, 1), 0.5), "TIFF"), [[127.5] * 3], id="floating point"),
    ],
)
def test_more_than_eight_bits_are_kept_as_floating_point(data: bytes, expected: list[list[float]]) -> None:
    image = decode(data, 3)
    assert (image.dtype, image.shape) == (torch.float32, (3, 1, len(expected)))
    assert (image * 255)[:, 0].T.numpy() == pytest.approx(np.array(expected), abs=0.6)


@pytest.mark.parametrize(
    ("picture", "channels", "expected"),
    [
        (Image.new("RGB", (1, 1), (100, 150, 200)), 1, [[141]]),  # 0.299, 0.587, 0.114
        (Image.new("RGBA", (1, 1), (0, 0, 0, 0)), 1, [[255]]),
        (Image.new("CMYK", (1, 1), (0, 0, 0, 255)), 1, [[0]]),
        (Image.new("RGBA", (1, 1), (1, 2, 3, 4)), 4, [[1, 2, 3, 4]]),
        (Image.new("RGB", (1, 1), (1, 2, 3)), 4, [[1, 2, 3, 255]]),
        (Image.new("CMYK", (1, 1), (255, 0, 0, 0)), 4, [[0, 255, 255, 255]]),
    ],
)
def test_one_and_four_channels(picture: Image.Image, channels: int, expected: list[list[int]]) -> None:
    kind = "TIFF" if picture.mode == "CMYK" else "PNG"
    assert colours(decode(encode(picture, kind), channels)) == expected


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int, kind: str) -> None:
    corners = Image.new("RGB", (48, 32), "black")
    corners.paste("white", (0, 0, 16, 16))  # a corner that shows where it went
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(corners, kind, exif=exif.tobytes())
    image = decode(data, 3)
    assert image.shape[1:] == ((32, 48) if orientation < 5 else (48, 32))
    top, left = {1: (1, 1), 2: (1, 0), 3: (0, 0), 4: (0, 1), 5: (1, 1), 6: (1, 0), 7: (0, 0), 8: (0, 1)}[orientation]
    assert image[0, 4 if top else -4, 4 if left else -4] > 250
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened)).astype(int)
    assert np.abs(image.permute(1, 2, 0).numpy() - expected).max() <= 2


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_condemn_the_pixels() -> None:
    data = encode(Image.new("RGB", (8, 8), "red"), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode(data, 3).shape == (3, 8, 8)


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert colours(decode(data, 3))[0] == [255, 0, 0]


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_fast_jpeg_equals_pillow(
    photos: Path, subsampling: str, progressive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("simplejpeg")
    for file in photos.rglob("*.png"):
        with Image.open(file) as picture:
            options = {"quality": 85, "subsampling": subsampling, "progressive": progressive}
            data = encode(picture.resize((83, 61)), "JPEG", **options)
        fast = decode(data, 3).int()
        with monkeypatch.context() as patched:
            patched.setattr(module, "simplejpeg", None)
            assert (fast - decode(data, 3).int()).abs().max() <= 2


def test_fast_and_plain_jpeg_agree_on_what_is_damaged(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = next(photos.rglob("*.jpg")).read_bytes()

    def outcome(data: bytes) -> bool:
        try:
            return decode(data, 3) is not None
        except ImageError:
            return False

    variants = [whole[:length] for length in range(100, len(whole), 97)] + [whole[:-2], whole + b"trailing"]
    fast = [outcome(data) for data in variants]
    monkeypatch.setattr(module, "simplejpeg", None)
    assert fast == [outcome(data) for data in variants]
    assert not any(fast[:-2])


class TestArrays:
    @pytest.mark.parametrize("shape", [(5, 6, 7), (6, 7, 5)])
    def test_npy_with_channels_first_or_last(self, shape: tuple[int, int, int]) -> None:
        values = np.arange(210, dtype=np.uint8).reshape(shape)
        expected = values if shape[0] == 5 else values.transpose(2, 0, 1)
        assert (decode(npy(values), 5).numpy() == expected).all()
        assert (decode(npy(np.asfortranarray(values)), 5).numpy() == expected).all()

    def test_more_than_eight_bits_stay_floating_point(self) -> None:
        assert decode(npy(np.full((2, 2, 6), 65535, dtype=np.uint16)), 6).unique().tolist() == [1.0]
        image = decode(npy(np.full((2, 2, 6), 0.25, dtype=np.float64)), 6)
        assert (image.dtype, image.unique().tolist()) == (torch.float32, [0.25])

    @pytest.mark.parametrize("channels", [2, 4, 5, 12])
    def test_tif_of_many_channels(self, channels: int) -> None:
        tifffile = pytest.importorskip("tifffile")
        values = np.random.default_rng(0).integers(0, 65536, (9, 8, channels), dtype=np.uint16)
        for layout in ("contig", "separate"):
            buffer = io.BytesIO()
            array = values if layout == "contig" else values.transpose(2, 0, 1)
            tifffile.imwrite(buffer, array, photometric="minisblack", planarconfig=layout)
            image = decode(buffer.getvalue(), channels)
            assert image.permute(1, 2, 0).numpy() == pytest.approx(values / 65535, abs=1e-6)

    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_tif_of_fewer_channels_becomes_four(self, mode: str) -> None:
        image = decode(encode(Image.new(mode, (2, 3), "white"), "TIFF"), 4)
        assert (image.shape, image.unique().tolist()) == ((4, 3, 2), [255])

    def test_tif_of_many_channels_is_turned(self) -> None:
        tifffile = pytest.importorskip("tifffile")
        values = np.random.default_rng(0).integers(0, 256, (4, 6, 5), dtype=np.uint8)
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, values, photometric="minisblack", planarconfig="contig", extratags=[(274, 3, 1, 6)])
        turned = decode(buffer.getvalue(), 5).permute(1, 2, 0).numpy()
        assert (turned == np.rot90(values, -1)).all()

    def test_grey_of_sixteen_bits_becomes_three_channels(self) -> None:
        image = decode(npy(np.full((2, 3), 65535, dtype=np.uint16)), 3)
        assert (image.dtype, image.shape, image.unique().tolist()) == (torch.float32, (3, 2, 3), [1.0])

    def test_result_can_be_written_to(self) -> None:
        decode(np.zeros((4, 4), dtype=np.uint8), 1).fill_(3)

    @pytest.mark.parametrize(
        ("data", "channels", "reason"),
        [
            (npy(np.zeros((4, 4, 6), np.int32)), 6, "int32"),
            (npy(np.array([{"a": 1}], dtype=object)), 6, "object"),
            (npy(np.full((4, 4, 6), 2.0)), 6, "have to lie in"),
            (npy(np.full((4, 4, 6), np.nan)), 6, "have to lie in"),
            (npy(np.zeros((4, 4, 6), np.uint8)), 5, "5 channels are asked for"),
            (npy(np.zeros((4, 4, 6), np.uint8))[:-1], 6, "truncated"),
            (npy(np.zeros(7, np.uint8)), 1, "shape"),
            (npy(np.zeros((0, 4, 6), np.uint8)), 6, "shape"),
            (encode(Image.new("RGB", (2, 2))), 5, "keep these images as .npy or .tif"),
        ],
    )
    def test_refusals(self, data: bytes, channels: int, reason: str) -> None:
        with pytest.raises(ImageError, match=reason):
            decode(data, channels)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"no picture at all", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),  # would start Ghostscript
        (encode(Image.new("RGB", (64, 64)))[:60], "."),
        (encode(Image.new("I", (2, 1), 70_000), "TIFF"), "16 bits"),
    ],
)
def test_refusals(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        decode(data, 3)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("GIF", {}), ("WEBP", {}), ("BMP", {}), ("PPM", {}),
     ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("AVIF", {})],
)  # fmt: skip
def test_truncated_is_refused_in_every_format(photos: Path, kind: str, options: dict[str, Any]) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    with Image.open(next(photos.rglob("*.png"))) as picture:
        data = encode(picture.quantize(64) if kind == "GIF" else picture, kind, **options)
    assert decode(data, 3).shape[0] == 3
    for share in (0.3, 0.6, 0.9, 0.97):
        with pytest.raises(ImageError):
            decode(data[: int(len(data) * share)], 3)


def test_size_guard_can_be_lowered() -> None:
    data = encode(Image.new("RGB", (30, 20)))
    assert decode(data, 3, max_pixels=600).shape == (3, 20, 30)
    with pytest.raises(ImageError, match="30x20 pixels are more than the 599"):
        decode(data, 3, max_pixels=599)
