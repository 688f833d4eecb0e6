"""JPEGs of which only as many pixels are decoded as a crop needs: the same crops, nearly the same pixels."""

import io
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_damage import DAMAGE, FORMS, HARMLESS
from test_loader import batches, same
from torch import Tensor

from maekit.config import AugmentConfig
from maekit.data import decode as module
from maekit.data.decode import decode, decode_reduced
from maekit.data.reduced import Reduced
from maekit.data.sources import open_source
from maekit.data.transforms import TrainTransform
from maekit.errors import ImageError

SIZE = (32, 32)
PHOTOGRAPHS = resources.files("sklearn.datasets") / "images"
Eighth = Callable[[int, int], int]


def by(factor: int) -> Eighth:
    return lambda *_: factor


def picture(height: int = 363, width: int = 501, noise: float = 9) -> Image.Image:
    """Shapes as large as those of photographs, and noise as strong as that of a camera in the dark."""
    draw = np.random.default_rng(0)
    coarse = Image.fromarray(draw.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8))
    shapes = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray(np.clip(shapes + draw.normal(0, noise, shapes.shape), 0, 255).astype(np.uint8))


def jpeg(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **{"quality": 90, **options})
    return buffer.getvalue()


def turned(image: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(image, exif=exif)


def both(data: bytes, augment: AugmentConfig, number: int, size: tuple[int, int] = SIZE) -> tuple[Tensor, Tensor, int]:
    """A crop of all pixels, the same of fewer, and how many became one."""
    transform, key = TrainTransform(augment, size), (0, 0, number, 0)
    image = decode_reduced(data, 3, partial(transform.factor, [key]))
    factor = image.reduction.factor if isinstance(image, Reduced) else 1
    return transform(decode(data, 3), *key), transform(image, *key), factor


def apart(one: Tensor, other: Tensor) -> float:
    """Mean absolute difference, in grey levels."""
    return float((one.float() - other.float()).abs().mean())


CROPS = {
    "random": AugmentConfig(), "small": AugmentConfig(scale=(0.05, 0.2)), "center": AugmentConfig(crop="center"),
    "pad": AugmentConfig(crop="pad"), "none": AugmentConfig(crop="none"),
    "bilinear": AugmentConfig(interpolation="bilinear"),
}  # fmt: skip


@pytest.mark.parametrize("how", CROPS)
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
def test_crops_are_nearly_those_of_all_pixels(how: str, subsampling: str) -> None:
    data = jpeg(picture(), subsampling=subsampling)
    found = [both(data, CROPS[how], number) for number in range(24)]
    assert {factor for *_, factor in found} & {2, 4, 8}
    assert max(apart(whole, few) for whole, few, _ in found) < 4


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
def test_crops_of_photographs_are_within_the_stated_bound(name: str) -> None:
    """docs/training.md: two grey levels in the mean, six in the worst crop."""
    found = [both((PHOTOGRAPHS / name).read_bytes(), AugmentConfig(), number, size=(64, 64)) for number in range(20)]
    differences = [apart(whole, few) for whole, few, factor in found if factor > 1]
    assert len(differences) == 20
    assert float(np.mean(differences)) < 2
    assert max(differences) < 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_pictures_are_cropped_where_the_whole_ones_are(orientation: int) -> None:
    """A row or column off would be as far from it as a crop is from its neighbour."""
    data = turned(picture(), orientation)
    for number in range(6):
        whole, few, factor = both(data, AugmentConfig(scale=(0.6, 1)), number)
        assert factor >= 4
        assert apart(whole, few) < 0.4 * apart(whole[:, 1:], whole[:, :-1])
        assert apart(whole, few) < 0.4 * apart(whole[..., 1:], whole[..., :-1])


def test_the_worst_that_can_be() -> None:
    """Lines and checks of single pixels, and noise alone: nothing a photograph holds, so the bound is a wide one."""
    rows, columns = np.mgrid[0:512, 0:512]
    noise = np.random.default_rng(0).integers(0, 256, (512, 512))
    for values in ((rows % 2) * 255, ((rows + columns) % 2) * 255, ((rows // 3 + columns // 5) % 2) * 255, noise):
        data = jpeg(Image.fromarray(values.astype(np.uint8)).convert("RGB"))
        assert max(apart(*both(data, AugmentConfig(), number)[:2]) for number in range(8)) < 16


def test_no_crop_has_fewer_pixels_than_are_asked_for() -> None:
    transform = TrainTransform(AugmentConfig(scale=(0.01, 1)), SIZE)
    seen = set()
    for number in range(300):
        key = (0, 0, number, 0)
        factor = transform.factor([key], 363, 501)
        *_, rows, columns = transform._box(363, 501, module_generator(*key))
        assert factor == 1 or min(rows, columns) / factor >= 32
        assert factor == 8 or min(rows, columns) / (2 * factor) < 32
        seen.add(factor)
    assert seen == {1, 2, 4, 8}


def module_generator(*key: int) -> np.random.Generator:
    from maekit.data.transforms import _AUGMENT
    from maekit.randomness import numpy_generator

    return numpy_generator(_AUGMENT, *key)


@pytest.mark.parametrize("size", [(20, 30), (32, 32), (63, 400), (400, 63), (150, 170)])
def test_pictures_near_the_size_are_exactly_as_ever(size: tuple[int, int]) -> None:
    data = jpeg(picture(*size))
    for number in range(8):
        whole, few, factor = both(data, AugmentConfig(scale=(0.05, 1)), number)
        assert factor == 1
        assert torch.equal(whole, few)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "CMYK", "range"])
def test_all_else_is_decoded_in_full(kind: str) -> None:
    buffer = io.BytesIO()
    image = picture()
    image.convert("CMYK").save(buffer, "JPEG") if kind == "CMYK" else image.save(
        buffer, "JPEG" if kind == "range" else kind
    )
    value_range = (0.0, 255.0) if kind == "range" else None
    image = decode_reduced(buffer.getvalue(), 3, by(8), value_range=value_range)
    assert isinstance(image, Tensor)
    assert image.shape == (3, 363, 501)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_pillow_alone_makes_the_same_pixels(
    mode: str, channels: int, factor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = jpeg(picture().convert(mode))
    fast = decode_reduced(data, channels, by(factor))
    monkeypatch.setattr(module, "simplejpeg", None)
    plain = decode_reduced(data, channels, by(factor))
    assert isinstance(fast, Reduced)
    assert isinstance(plain, Reduced)
    assert fast.pixels.shape == (channels, -(-363 // factor), -(-501 // factor))
    assert torch.equal(fast.pixels, plain.pixels)
    assert fast.reduction == plain.reduction


def verdict(read: Callable[[], object]) -> str:
    try:
        read()
    except ImageError as error:
        return str(error)
    return "sound"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", [*DAMAGE, *HARMLESS])
def test_damage_is_noticed_as_in_full(form: str, what: str) -> None:
    data = {**DAMAGE, **HARMLESS}[what](jpeg(picture(192, 256), **FORMS[form]))
    for factor in (2, 8):
        assert verdict(lambda factor=factor: decode_reduced(data, 3, by(factor))) == verdict(lambda: decode(data, 3))


@pytest.mark.parametrize("form", FORMS)
def test_bytes_changed_at_random_are_noticed_as_in_full(form: str) -> None:
    draw, data, noticed = np.random.default_rng(0), jpeg(picture(192, 256), **FORMS[form]), 0
    for _ in range(60):
        at = int(draw.integers(700, len(data) - 80))
        changed = data[:at] + draw.bytes(int(draw.integers(1, 64))) + data[at + 64 :]
        whole = verdict(lambda changed=changed: decode(changed, 3))
        assert verdict(lambda changed=changed: decode_reduced(changed, 3, by(8))) == whole
        noticed += whole != "sound"
    assert noticed > 20


@pytest.fixture
def large(tmp_path: Path) -> str:
    for number in range(4):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(picture(150 + number, 200, noise=2)))
    return str(tmp_path)


def test_batches_are_the_same_crops_and_full_is_exact(large: str) -> None:
    source = open_source(large)
    few, whole = (list(batches(source, decode=how, total_steps=2)) for how in ("reduced", "full"))
    assert not same(few, whole)
    for one, other in zip(few, whole, strict=True):
        assert torch.equal(one.indices, other.indices)
        assert apart(one.images, other.images) < 3
    transform = TrainTransform(AugmentConfig(erase=0.3), (16, 16))
    index = int(whole[0].indices[0])
    assert torch.equal(whole[0].images[0], transform(decode(source.read(index), 3), 0, 0, index, 0))


def test_views_see_the_same_pixels_however_batches_are_cut(large: str) -> None:
    source, augment = open_source(large), AugmentConfig(repeats=3, scale=(0.05, 1))
    settings = {"augment": augment, "batch_size": 12, "total_steps": 2}
    images = [torch.cat([batch.images for batch in batches(source, micro_batch=n, **settings)]) for n in (2, 4, 12)]
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])
