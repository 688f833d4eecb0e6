"""What becomes of an image that is packed: smaller, or the very bytes it had."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from test_reduced import picture, turned

import maekit
from maekit.data.decode import decode
from maekit.data.packing import Form, made_small, name_of
from maekit.data.sources import find_source
from maekit.errors import ImageError


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_larger_ones_become_jpeg_of_that_shorter_side(kind: str) -> None:
    small = made_small(encoded(picture(300, 400, noise=2), kind), 150, 90)
    assert (small.suffix, small.how) == (".jpg", "made smaller")
    pixels = decode(small.data, 3)
    assert pixels.shape == (3, 150, 200)
    wanted = np.asarray(picture(300, 400, noise=2).resize((200, 150), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(pixels.permute(1, 2, 0).numpy() - wanted).mean() < 4


def test_a_better_quality_is_nearer_and_larger() -> None:
    data = encoded(picture(300, 400), "PNG")
    whole = decode(encoded(picture(300, 400).resize((200, 150), Image.Resampling.BICUBIC), "PNG"), 3).float()
    poor, good = (made_small(data, 150, quality).data for quality in (30, 95))
    assert len(good) > len(poor)
    assert (decode(good, 3) - whole).abs().mean() < (decode(poor, 3) - whole).abs().mean()


def test_grey_stays_grey_and_looks_the_same() -> None:
    small = made_small(encoded(picture(300, 400).convert("L"), "JPEG"), 150, 90)
    assert Image.open(io.BytesIO(small.data)).mode == "L"
    assert decode(small.data, 3).shape == (3, 150, 200)


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
@pytest.mark.parametrize("short_side", [40, 500])
def test_turned_ones_are_kept_as_they_are_seen(orientation: int, short_side: int) -> None:
    data = turned(picture(60, 90), orientation)
    small = made_small(data, short_side, 95)
    assert small.how == "made smaller"
    assert not Image.open(io.BytesIO(small.data)).getexif()
    seen, kept = decode(data, 3), decode(small.data, 3)
    assert (kept.shape[1] > kept.shape[2]) == (seen.shape[1] > seen.shape[2])
    if short_side > 60:
        assert (kept.float() - seen.float()).abs().mean() < 5


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_small_ones_keep_their_bytes(kind: str) -> None:
    data = encoded(picture(64, 90), kind)
    small = made_small(data, 64, 50)
    assert small.data == data
    assert small.how == "small already"
    assert small.suffix == {"JPEG": ".jpg"}.get(kind, f".{kind.lower()}")


def test_what_jpeg_cannot_hold_keeps_its_bytes() -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (90, 80)).astype(np.uint16)
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((5, 90, 80), np.uint8))
    bands = io.BytesIO()
    tifffile.imwrite(bands, np.zeros((7, 90, 80), np.uint16), photometric="minisblack", planarconfig="separate")
    for data, suffix in ((encoded(Image.fromarray(deep), "PNG"), ".png"), (buffer.getvalue(), ".npy"),
                         (bands.getvalue(), ".tif")):  # fmt: skip
        small = made_small(data, 32, 90)
        assert (small.data, small.suffix, small.how) == (data, suffix, "not for JPEG")


def test_arrays_of_a_program_are_pictures_where_they_can_be() -> None:
    array = np.asarray(picture(90, 80))
    assert made_small(array, 32, 90).how == "made smaller"
    for kept, how in ((array, "small already"), (array.astype(np.float32) / 255, "not for JPEG"),
                      (array.repeat(3, axis=2), "not for JPEG")):  # fmt: skip
        small = made_small(kept, 200, 90)
        assert (small.suffix, small.how) == (".npy", how)
        assert np.array_equal(np.load(io.BytesIO(small.data)), kept)


@pytest.mark.parametrize("data", [b"", b"text", b"\xff\xd8\xff\xe0 broken", b"II*\0 broken", b"\x93NUMPY broken"])
def test_what_cannot_be_read_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        made_small(data, 32, 90)


def test_names_keep_the_order_and_what_an_image_was_called() -> None:
    assert name_of(7, 20, "/photos/cat/my cat.2.JPEG", ".jpg") == "00007_my_cat_2.jpg"
    assert name_of(7, 20, "shard-0.tar:000012.png", ".png") == "00007.png"
    assert name_of(7, 2_000_000, "train.parquet:7", ".jpg") == "0000007.jpg"
    assert sorted(name_of(n, 20, f"{20 - n}.jpg", ".jpg") for n in range(20)) == [
        name_of(n, 20, f"{20 - n}.jpg", ".jpg") for n in range(20)
    ]


@pytest.mark.parametrize("to", ["tar", "parquet"])
def test_every_form_of_a_source_is_packed_alike(in_every_form: dict[str, str], tmp_path: Path, to: Form) -> None:
    """Also files elsewhere, and data sets of other libraries."""
    found = []
    for form, text in in_every_form.items():
        out = tmp_path / form
        maekit.pack(text, out=out, short_side=32, to=to, workers=0, shards=2)
        before, after = find_source(text), find_source(str(out))
        assert after.classes == before.classes, form
        assert [after.label(n) for n in range(12)] == [before.label(n) for n in range(12)], form
        found.append([hashlib.sha256(after.read(n)).hexdigest() for n in range(12)])
        assert found[-1] == found[0], form
