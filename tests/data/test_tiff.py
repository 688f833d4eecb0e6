"""TIFFs of every kind come out as they were written, or are refused with what to do."""

import io
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import Tensor

from maekit.data import tiff
from maekit.data.decode import decode, stored_mode
from maekit.errors import ImageError

DRAW = np.random.default_rng(0)
DEEP = DRAW.integers(0, 65536, (40, 48, 4), dtype=np.uint16)
RGB, ALPHA = DEEP[..., :3], DEEP[..., 3:] / 65535
BYTES = (DEEP >> 8).astype(np.uint8)
FLOAT = DRAW.random((40, 48)).astype(np.float32)
TWELVE = DRAW.integers(0, 4096, (40, 48), dtype=np.uint16)
SIGNED = TWELVE.astype(np.int16) - 100


def tif(values: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def pillow_tif(values: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "TIFF", **options)
    return buffer.getvalue()


def pages(*values: np.ndarray, **options: Any) -> bytes:
    """Pages that were written one by one, with nothing said of them."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for page in values:
            writer.write(page, metadata=None, **options)
    return buffer.getvalue()


def last(image: Tensor) -> np.ndarray:
    """[H, W, C]."""
    return image.permute(1, 2, 0).double().numpy()


PLANAR: dict[str, Any] = {"photometric": "rgb", "planarconfig": "separate"}


@pytest.mark.parametrize(
    "options",
    [
        {}, {"compression": "zlib"}, {"compression": "zlib", "predictor": 2}, {"tile": (16, 16)}, {"byteorder": ">"},
        {"bigtiff": True}, {"rowsperstrip": 7}, {"tile": (16, 16), "compression": "zlib"}, {"planarconfig": "separate"},
    ],
    ids=str,
)  # fmt: skip
class TestDeepColours:
    def data(self, options: dict[str, Any]) -> bytes:
        return tif(RGB.transpose(2, 0, 1) if "planarconfig" in options else RGB, photometric="rgb", **options)

    def test_every_value_is_kept(self, options: dict[str, Any]) -> None:
        image = decode(self.data(options), 3)
        assert image.dtype == torch.float32
        assert last(image) == pytest.approx(RGB / 65535, abs=1e-6)

    def test_what_is_cut_is_refused(self, options: dict[str, Any]) -> None:
        data = self.data(options)
        for share in (0.3, 0.6, 0.9, 0.97):
            with pytest.raises(ImageError):
                decode(data[: int(len(data) * share)], 3)


@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("rows", [7, 40])
def test_lzw_of_sixteen_bits(predictor: int, rows: int) -> None:
    data = pillow_tif(TWELVE, compression="tiff_lzw", tiffinfo={317: predictor, 278: rows})
    assert last(decode(data, 1))[..., 0] == pytest.approx(TWELVE / 65535, abs=1e-6)


def test_a_damaged_deflate_stream_is_refused() -> None:
    data = bytearray(tif(BYTES[..., :3], photometric="rgb", compression="zlib"))
    data[len(data) // 2] ^= 4
    with pytest.raises(ImageError):
        decode(bytes(data), 3)


COLOURMAP = DRAW.integers(0, 65536, (3, 65536), dtype=np.uint16)


@pytest.mark.parametrize(
    ("data", "channels", "expected"),
    [
        pytest.param(tif(FLOAT.astype(np.float64)), 1, FLOAT[..., None], id="float64"),
        pytest.param(tif(FLOAT), 3, FLOAT[..., None].repeat(3, 2), id="float32"),
        pytest.param(tif(RGB / 65535, photometric="minisblack", planarconfig="contig"), 3, RGB / 65535, id="3 floats"),
        pytest.param(tif(RGB, photometric="minisblack", planarconfig="contig"), 3, RGB / 65535, id="3 bands"),
        pytest.param(tif(TWELVE, photometric="miniswhite"), 1, 1 - TWELVE[..., None] / 65535, id="0 is white"),
        pytest.param(tif(RGB, photometric="rgb"), 4, np.concatenate([RGB / 65535, ALPHA * 0 + 1], 2), id="3 as 4"),
        pytest.param(tif(RGB, photometric="rgb"), 1, (RGB / 65535 @ [0.299, 0.587, 0.114])[..., None], id="3 as 1"),
        pytest.param(tif(DEEP, photometric="rgb", extrasamples=["unassalpha"]), 4, DEEP / 65535, id="alpha kept"),
        pytest.param(tif(DEEP, photometric="rgb", extrasamples=["unassalpha"]), 3, RGB / 65535 * ALPHA + 1 - ALPHA,
                     id="alpha over white"),
        pytest.param(tif(DEEP, photometric="rgb", extrasamples=["unspecified"]), 3, RGB / 65535, id="a fourth sample"),
        pytest.param(tif(DEEP[..., 2:], photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"]),
                     1, DEEP[..., 2:3] / 65535 * ALPHA + 1 - ALPHA, id="grey with alpha"),
        pytest.param(tif(DEEP, photometric="separated"), 3, (1 - RGB / 65535) * (1 - ALPHA), id="CMYK"),
        pytest.param(tif(TWELVE, photometric="palette", colormap=COLOURMAP), 3,
                     COLOURMAP[:, TWELVE].transpose(1, 2, 0) / 65535, id="palette"),
        pytest.param(pages(TWELVE, TWELVE + 1, TWELVE + 2), 3, np.stack([TWELVE, TWELVE + 1, TWELVE + 2], 2) / 65535,
                     id="pages"),
        pytest.param(tif(np.stack([RGB, 65535 - RGB]), photometric="rgb"), 3, RGB / 65535, id="frames in colours"),
        pytest.param(tif(RGB, photometric="rgb", extratags=[(274, 3, 1, 6)]), 3, np.rot90(RGB, -1) / 65535, id="turn"),
    ],
)  # fmt: skip
def test_what_pillow_reads_wrong_or_not_at_all(data: bytes, channels: int, expected: np.ndarray) -> None:
    image = decode(data, channels)
    assert image.dtype == torch.float32
    assert last(image) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("data", "channels", "expected"),
    [
        (pages(*BYTES.transpose(2, 0, 1)), 4, BYTES),
        (tif(BYTES.transpose(2, 0, 1), photometric="minisblack"), 4, BYTES),
        (tif(BYTES[..., :3].transpose(2, 0, 1), **PLANAR), 3, BYTES[..., :3]),
        (pages(BYTES[..., :3], BYTES[::2, ::2, :3], photometric="rgb"), 3, BYTES[..., :3]),
        (tif(BYTES.transpose(2, 0, 1)[:, None], imagej=True, metadata={"axes": "TCYX"}), 1, BYTES[..., :1]),
        (tif(np.stack([BYTES, BYTES], 0).transpose(0, 3, 1, 2), ome=True, metadata={"axes": "ZCYX"}), 4, BYTES),
        (tif(BYTES[..., 0], photometric="miniswhite"), 1, 255 - BYTES[..., :1]),
    ],
)
def test_bytes_stay_bytes(data: bytes, channels: int, expected: np.ndarray) -> None:
    image = decode(data, channels)
    assert image.dtype == torch.uint8
    assert (last(image) == expected).all()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tif(np.zeros((12, 8, 9), np.uint16), photometric="minisblack", planarconfig="separate"),
         r"^12 channels, 3 are asked for; --model.channels 12 .*maekit data --channels 12"),
        (tif(np.zeros((9, 8, 9), np.uint8), photometric="minisblack"), r"^9 channels, 3 .* pages of grey"),
        (tif(np.zeros((8, 9, 2), np.uint8), photometric="minisblack", planarconfig="contig"), "^2 channels, 3 are"),
        (tif(SIGNED), r"int16, from -\d+ to \d+; .*--data.range LOW HIGH"),
        (tif(TWELVE.astype(np.uint32)), r"uint32, from \d+ to \d+; .*--data.range"),
        (tif(FLOAT * 300), r"values from [\d.]+ to [\d.]+; they have to lie in \[0, 1\], .*--data.range"),
        (tif(np.full((4, 4), np.nan, np.float32)), "nan"),
        (tif(np.zeros((4, 4), np.complex64)), "complex64"),
    ],
)  # fmt: skip
def test_refusals_say_what_to_do(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode(data, 3)


def test_a_compression_that_needs_a_package_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = tif(RGB, photometric="rgb", compression="zlib")
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_, **__: _raise("<8> requires the 'imagecodecs' package"))
    with pytest.raises(ImageError, match=r"compressed by adobe_deflate.*maekit\[tiff\]"):
        decode(data, 3)


def _raise(words: str) -> None:
    raise ValueError(words)


def test_ordinary_pictures_are_left_to_pillow() -> None:
    for values in (BYTES[..., 0], BYTES[..., :3]):
        assert tiff.read(pillow_tif(values), 3, 10_000, None) is None


def test_the_mode_tells_type_and_bands() -> None:
    assert stored_mode(tif(RGB, photometric="rgb")) == "TIFF uint16 x3"
    assert stored_mode(pages(TWELVE, TWELVE)) == "TIFF uint16 x2"


class TestRange:
    @pytest.mark.parametrize(
        ("data", "value_range", "expected"),
        [
            (tif(TWELVE), (0.0, 4095.0), TWELVE / 4095),
            (tif(SIGNED), (-100.0, 3995.0), TWELVE / 4095),
            (tif(TWELVE.astype(np.uint32)), (0.0, 4095.0), TWELVE / 4095),
            (tif(FLOAT * 300), (0.0, 300.0), FLOAT),
            (tif(TWELVE), (1000.0, 2000.0), np.clip((TWELVE - 1000.0) / 1000, 0, 1)),
            (pillow_tif(BYTES[..., 0]), (0.0, 510.0), BYTES[..., 0] / 510),
            (tif(TWELVE, photometric="miniswhite"), (0.0, 4095.0), 1 - TWELVE / 4095),
        ],
    )
    def test_stored_values_become_black_and_white(
        self, data: bytes, value_range: tuple[float, float], expected: np.ndarray
    ) -> None:
        image = decode(data, 1, value_range=value_range)
        assert image.dtype == torch.float32
        assert last(image)[..., 0] == pytest.approx(expected, abs=1e-5)

    def test_alpha_has_none(self) -> None:
        data = tif(DEEP, photometric="rgb", extrasamples=["unassalpha"])
        assert last(decode(data, 4, value_range=(0.0, 10.0)))[..., 3:] == pytest.approx(ALPHA, abs=1e-5)

    def test_not_a_number_is_refused(self) -> None:
        with pytest.raises(ImageError, match="NaN"):
            decode(tif(np.full((4, 4), np.nan, np.float32)), 1, value_range=(0.0, 1.0))
