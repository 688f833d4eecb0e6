"""Augmentation: right sizes and values for any channels, and nothing but its key decides what comes out."""

import pickle
import random
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from maekit.config import AugmentConfig
from maekit.config.beforehand import check_augment
from maekit.data.transforms import EvalTransform, TrainTransform
from maekit.errors import UsageError

EVERYTHING = AugmentConfig(randaugment="rand-m9-mstd0.5-inc1", erase=1.0)


def picture(channels: int = 3, height: int = 40, width: int = 60, dtype: torch.dtype = torch.uint8) -> Tensor:
    values = torch.randint(0, 256, (channels, height, width), generator=torch.Generator().manual_seed(0))
    return values.to(torch.uint8) if dtype == torch.uint8 else values.float() / 255


@settings(deadline=None, max_examples=60)
@given(
    crop=st.sampled_from(["random", "pad", "center", "none"]),
    channels=st.sampled_from([1, 3, 7]),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    target=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    as_float=st.booleans(),
)
def test_every_crop_gives_the_size_and_type(
    crop: Literal["random", "pad", "center", "none"],
    channels: int,
    height: int,
    width: int,
    target: tuple[int, int],
    as_float: bool,
) -> None:
    image = picture(channels, height, width, torch.float32 if as_float else torch.uint8)
    for result in (
        TrainTransform(AugmentConfig(crop=crop, erase=0.5), target)(image, 0, 1, 2, 3),
        EvalTransform(target, 0.875)(image),
    ):
        assert result.shape == (channels, *target)
        assert result.dtype == image.dtype
        assert not as_float or (result.min() >= 0 and result.max() <= 1)


def test_the_key_alone_decides() -> None:
    transform = pickle.loads(pickle.dumps(TrainTransform(EVERYTHING, (32, 32))))
    image = picture()
    first = transform(image, 0, 1, 2, 0)
    random.seed(1)
    torch.manual_seed(1)
    for other in ((1, 1, 2, 0), (0, 2, 2, 0), (0, 1, 3, 0), (0, 1, 2, 1)):
        assert not torch.equal(transform(image, *other), first)
    assert torch.equal(TrainTransform(EVERYTHING, (32, 32))(image, 0, 1, 2, 0), first)


def test_global_generators_stay_as_they_were() -> None:
    random.seed(5)
    torch.manual_seed(5)
    expected = (random.random(), torch.rand(1))
    random.seed(5)
    torch.manual_seed(5)
    TrainTransform(EVERYTHING, (32, 32))(picture(), 0)
    assert (random.random(), torch.rand(1)) == expected


def test_the_decoded_image_is_left_alone() -> None:
    image = picture(height=32, width=32)
    before = image.clone()
    for crop in ("none", "random"):
        TrainTransform(AugmentConfig(crop=crop, erase=1.0, scale=(1.0, 1.0)), (32, 32))(image, 0)  # type: ignore[arg-type]
    assert torch.equal(image, before)


def test_random_crops_keep_the_share_and_ratio_asked_for() -> None:
    from maekit.data.transforms import _random_box

    draw = np.random.default_rng(0)
    boxes = [_random_box(draw, 100, 150, (0.2, 0.5), (0.75, 1.25)) for _ in range(300)]
    for top, left, rows, columns in boxes:
        assert 0 <= top <= 100 - rows
        assert 0 <= left <= 150 - columns
        assert 0.19 <= rows * columns / 15000 <= 0.51
        assert 0.7 <= columns / rows <= 1.3
    assert len(set(boxes)) > 290


def test_flip_happens_as_often_as_asked() -> None:
    image = picture(height=16, width=16)
    transform = TrainTransform(AugmentConfig(crop="none", flip=0.3), (16, 16))
    results = [transform(image, index) for index in range(400)]
    flipped = sum(torch.equal(result, image.flip(-1)) for result in results)
    assert flipped + sum(torch.equal(result, image) for result in results) == 400
    assert 80 <= flipped <= 160


def test_pad_shifts_by_at_most_an_eighth() -> None:
    image = torch.zeros(1, 32, 32, dtype=torch.uint8)
    image[0, 16, 16] = 255
    transform = TrainTransform(AugmentConfig(crop="pad", flip=0.0), (32, 32))
    spots = {tuple(transform(image, index)[0].nonzero()[0].tolist()) for index in range(500)}
    assert {row for row, _ in spots} == {column for _, column in spots} == set(range(12, 21))


def test_erasing_leaves_the_rest_exactly_as_it_was() -> None:
    image = picture(channels=5, height=64, width=64)
    result = TrainTransform(AugmentConfig(crop="none", flip=0.0, erase=1.0), (64, 64))(image, 3)
    share = (result != image).any(0).float().mean()
    assert 0.01 < share < 0.36


def test_evaluation_takes_the_centre_of_the_shorter_side() -> None:
    image = torch.zeros(1, 256, 356, dtype=torch.uint8)
    image[:, 16:240, 66:290] = 200
    assert (EvalTransform((224, 224), 0.875)(image) == 200).all()


@pytest.mark.parametrize("shape", [(3, 1, 100_000), (3, 100_000, 1)])
def test_a_long_thin_image_is_cut_before_it_is_enlarged(shape: tuple[int, int, int]) -> None:
    image = torch.zeros(shape, dtype=torch.uint8)  # whole, at 256 px a row, it would be 20 GB
    image[:, shape[1] // 2 - 1 : shape[1] // 2 + 1, shape[2] // 2 - 1 : shape[2] // 2 + 1] = 255
    centre = EvalTransform((224, 224), 0.875)(image)
    assert centre.shape == (3, 224, 224)
    assert centre[:, 112, 112].tolist() == [255] * 3


def test_randaugment_is_for_three_channels_and_understood_words() -> None:
    with pytest.raises(UsageError, match="works on 3 channels"):
        check_augment(EVERYTHING, 1)
    with pytest.raises(UsageError, match="write it as timm does"):
        TrainTransform(AugmentConfig(randaugment="rnd-m9"), (32, 32))


def test_randaugment_works_at_any_strength() -> None:
    transform = TrainTransform(AugmentConfig(randaugment="rand-m10-n8-inc1"), (32, 32))
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    for index in range(50):
        assert transform(image, 0, 0, index, 0).shape == image.shape


@pytest.mark.parametrize("filter_name", ["bicubic", "bilinear"])
def test_randaugment_resamples_by_the_filter_that_was_asked_for(
    filter_name: Literal["bicubic", "bilinear"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rotations, shears and shifts by Pillow have that filter; in arXiv 2111.06377's code it is bicubic."""
    used = set()
    for method in ("rotate", "transform"):
        plain = getattr(Image.Image, method)

        def noting(*words: Any, plain: Any = plain, **options: Any) -> Any:
            if "resample" in options:  # rotations pass it on without its name
                used.add(options["resample"])
            return plain(*words, **options)

        monkeypatch.setattr(Image.Image, method, noting)
    augment = AugmentConfig(crop="none", interpolation=filter_name, randaugment="rand-m9-n4-mstd0.5-inc1")
    transform = TrainTransform(augment, (32, 32))
    for index in range(20):
        transform(picture(height=32, width=32), index)
    assert used == {Image.Resampling[filter_name.upper()]}
