"""Data sets of Python where text would name a source: whatever their items are; what is said where they are none."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset, TensorDataset

from maekit.config.objects import given_images
from maekit.data.decode import decode
from maekit.data.sources import Source, find_source
from maekit.data.sources.held_out import say_shared
from maekit.errors import DataError

PIXELS = np.arange(2 * 5 * 7 * 3, dtype=np.uint8).reshape(2, 5, 7, 3)


def opened(value: Any) -> Source:
    return find_source(given_images(value))


def pixels(source: Source, index: int, channels: int = 3) -> np.ndarray:
    return decode(source.read(index), channels).numpy()


class Items(list):  # type: ignore[type-arg]
    """A list that may have attributes."""


@pytest.mark.parametrize(
    "items",
    [
        list(PIXELS),
        PIXELS,
        [pixel.transpose(2, 0, 1) for pixel in PIXELS],
        torch.from_numpy(PIXELS).permute(0, 3, 1, 2),
        [Image.fromarray(pixel) for pixel in PIXELS],
        [{"image": pixel} for pixel in PIXELS],
        [{"img": Image.fromarray(pixel), "label": None} for pixel in PIXELS],
        TensorDataset(torch.from_numpy(PIXELS).permute(0, 3, 1, 2)),
    ],
    ids=["arrays", "one array", "channels first", "tensor", "pictures", "mappings", "of img", "TensorDataset"],
)
def test_every_kind_of_image_gives_its_pixels(items: Any) -> None:
    source = opened(items)
    assert len(source) == 2
    assert source.classes is None
    assert source.label(1) is None
    for index in range(2):
        assert np.array_equal(pixels(source, index), PIXELS[index].transpose(2, 0, 1))


def test_depth_is_kept() -> None:
    deep = (np.arange(35, dtype=np.uint16) * 1000).reshape(1, 5, 7)
    assert np.array_equal(pixels(opened(deep), 0, 1)[0], deep[0].astype(np.float32) / np.float32(65535))
    real = torch.linspace(0, 1, 35).reshape(1, 1, 5, 7)
    assert np.allclose(pixels(opened(real), 0, 1)[0], real[0, 0])
    deep_picture = Image.fromarray(deep[0])
    assert np.array_equal(pixels(opened([deep_picture]), 0, 1), pixels(opened(deep), 0, 1))


def test_pillow_images_are_seen_as_files_are(tmp_path: Path) -> None:
    """Alpha over white, palettes looked up, CMYK made colours, and turned as EXIF says."""
    colours = Image.fromarray(PIXELS[0])
    clear = Image.merge("RGBA", [*colours.split(), Image.fromarray(PIXELS[1][..., 0])])
    turned = Image.Exif()
    turned[0x0112] = 6
    for number, (image, suffix, how) in enumerate(
        [
            (clear, "png", {}),
            (colours.quantize(7), "png", {}),
            (colours.convert("CMYK"), "tif", {}),
            (colours.convert("1"), "png", {}),
            (colours, "png", {"exif": turned}),
        ]
    ):
        file = tmp_path / f"{number}.{suffix}"
        image.save(file, **how)
        assert np.array_equal(pixels(opened([Image.open(file)]), 0), decode(file.read_bytes(), 3).numpy()), image.mode


def test_labels_come_from_targets_a_subsets_or_the_items(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "maekit")
    whole = Items((pixel, torch.tensor(number)) for number, pixel in enumerate(PIXELS))
    whole.targets, whole.classes = torch.tensor([0, 1]), [("cat", "tom"), "dog"]
    source = opened(whole)
    assert [source.label(index) for index in range(2)] == [0, 1]
    assert source.classes == ("cat, tom", "dog")
    part = opened(Subset(whole, [1]))
    assert (part.label(0), part.classes) == (1, ("cat, tom", "dog"))
    assert not caplog.records
    whole.targets = [1, 0]  # not what the items say, as with a target_transform
    assert [opened(whole).label(index) for index in range(2)] == [0, 1]
    assert "all of it is read once" in caplog.text
    words = opened([(PIXELS[0], "b"), (PIXELS[1], "a")])
    assert (words.classes, words.label(0)) == (("a", "b"), 1)


def test_lists_of_paths_are_files(photos: Path) -> None:
    files = sorted(photos.rglob("*.*"))
    text = given_images(files)
    assert text == "<ListOfPaths: 12 images>"
    source = find_source(text)
    assert source.path(3) == str(files[3])
    assert source.read(3) == files[3].read_bytes()
    assert (source.classes, source.size(3)) == (None, files[3].stat().st_size)
    items = opened(Items({"image": file, "label": file.parent.name} for file in files))
    assert items.path(3) == str(files[3])
    assert items.read(3) == files[3].read_bytes()
    assert items.classes == ("rough", "smooth")


def test_a_fingerprint_tells_content_apart_and_names_belong_to_content() -> None:
    first, again, other = opened(list(PIXELS)), opened(list(PIXELS.copy())), opened(list(PIXELS + 1))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    assert {first.path(0), first.path(1)}.isdisjoint({other.path(0), other.path(1)})
    assert first.path(0) == again.path(0)


def test_what_is_learned_from_and_judged_by_is_found_in_objects_too() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (6, 5, 7, 3), dtype=np.uint8)
    assert say_shared(opened(noise[:4]), opened(noise[4:])) == 0
    assert say_shared(opened(noise[:4]), opened(noise[3:])) == 1


def test_random_transforms_are_warned_of() -> None:
    class Random:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            return np.random.default_rng().integers(0, 255, (5, 7, 3), dtype=np.uint8)

    assert "maekit augments by itself" in opened(Random()).passed_over.words()
    assert not opened(list(PIXELS)).passed_over.words()


def test_one_item_that_cannot_be_had_is_one_bad_image() -> None:
    from maekit.errors import ImageError

    class Holes(Items):
        def __getitem__(self, index: Any) -> Any:
            if index == 1:
                raise KeyError("gone")
            return super().__getitem__(index)

    source = opened(Holes(PIXELS))
    with pytest.raises(ImageError, match=r"cannot be had \(KeyError: 'gone'\)"):
        source.read(1)
    assert len(source.fingerprint()) == 64


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ([3, 4], r"<list: 2 images>: item 0 is int of shape \(\); an image is a path"),
        ([{"picture": 1}], "item 0 is NoneType of shape"),
        ([[]], r"item 0 is list of shape \(0,\)"),
        ([], "<ListOfPaths: 0 images>: holds no image"),
        (np.zeros((0, 3, 3)), "holds no image"),
        (PIXELS[0], r"\[5, 7, 3\] may be one image; give"),
        (torch.zeros(3, 9, 9), r"\[3, 9, 9\] may be one image"),
        (np.zeros((9, 9)), r"\[9, 9\] may be one image"),
        ([(PIXELS[0], 0.5)], "a label is 0.5"),
    ],
)
def test_what_is_no_image_is_said_in_one_line(value: Any, line: str) -> None:
    with pytest.raises(DataError, match=line):
        opened(value)


def test_several_splits_at_once_and_streams_are_refused() -> None:
    from maekit.config import DataConfig

    with pytest.raises(ValueError, match=r"should be one data set, not .*train.*test.* together"):
        DataConfig(source={"train": [], "test": []})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="should be text, a path, or a data set with a length"):
        DataConfig(source=iter([]))  # type: ignore[arg-type]


def test_what_was_an_object_is_asked_for_again() -> None:
    with pytest.raises(DataError, match="was an object of the program that wrote this; give it again"):
        find_source("<ListOfPaths: 12 images>")
