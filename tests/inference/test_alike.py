"""Near duplicates, and images that are dark, blurred or of one colour: found where they are, not where they are not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_image

import maekit
from maekit.config.verbs import DataOptions
from maekit.errors import DataError, StorageError, UsageError
from maekit.inference.alike import look, near
from maekit.inference.doctor import run
from maekit.report.images import write


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.fixture(scope="module")
def crops() -> list[Image.Image]:
    """Sixteen parts of two photographs."""
    found = []
    for name in ("china.jpg", "flower.jpg"):
        whole = Image.fromarray(load_sample_image(name))
        found += [whole.crop((x, y, x + 150, y + 200)) for x in (0, 160, 320, 480) for y in (0, 220)]
    return found


@pytest.fixture(scope="module")
def folders(crops, tmp_path_factory) -> tuple[Path, Path]:
    """(training, held-out) images, whose names tell what they are."""
    root = tmp_path_factory.mktemp("alike")
    train, val = root / "train", root / "val"
    train.mkdir()
    val.mkdir()
    for number, crop in enumerate(crops[:12]):
        crop.save(train / f"{number}.png")
    crops[2].save(train / "compressed.jpg", quality=60)
    (train / "same.png").write_bytes((train / "3.png").read_bytes())
    crops[4].filter(ImageFilter.GaussianBlur(7)).save(train / "blurred.png")
    crops[5].point(lambda value: value // 30).save(train / "dark.png")
    Image.new("RGB", (70, 70), (1, 99, 200)).save(train / "plain.png")
    Image.new("RGB", (70, 70), (1, 9, 20)).save(train / "plain too.png")
    (train / '<script>alert(1)<"img src=x onerror=x>.png').write_text("no image")
    crops[12].save(val / "new.png")
    crops[9].resize((120, 160)).save(val / "leaked.jpg", quality=80)
    (val / "copied.png").write_bytes((train / "7.png").read_bytes())
    return train, val


def named(groups) -> list[set[str]]:
    return [{Path(path).name for path in group} for group in groups]


def test_what_deserves_a_look_is_found_and_nothing_else(folders, tmp_path):
    train, val = folders
    said = maekit.data(train, val=val, out=tmp_path / "data.html", workers=0)
    assert sorted(map(sorted, named(said.near_duplicates))) == [["2.png", "compressed.jpg"], ["9.png", "leaked.jpg"]]
    assert sorted(map(sorted, named(said.shared))) == [["7.png", "copied.png"], ["9.png", "leaked.jpg"]]
    assert named([said.dark, said.blurred, said.constant]) == [
        {"dark.png"},
        {"blurred.png"},
        {"plain.png", "plain too.png"},
    ]
    assert named(said.duplicates) == [{"3.png", "same.png"}]  # those of the source alone
    assert "Held out, and among the others too:" in str(said)


def test_the_page_shows_each_with_its_path_and_runs_nothing(folders, tmp_path):
    train, val = folders
    maekit.data(train, val=val, out=tmp_path / "data.html", workers=0)
    page = (tmp_path / "data.html").read_text()
    for heading in ("A sample", "Unreadable: 1", "The same bytes: 2 groups", "Nearly the same: 2 groups",
                    "Held out, and among the training images too: 2 groups", "Very dark: 1", "Very blurred: 1",
                    "Of one colour: 2"):  # fmt: skip
        assert f"<h2>{heading}</h2>" in page
    for name in ("compressed.jpg", "same.png", "leaked.jpg", "dark.png", "blurred.png", "plain too.png"):
        assert f"{name}</span>" in page
    assert f"held out: {val / 'leaked.jpg'}" in page
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)&lt;" in page
    again = tmp_path / "again.html"
    maekit.data(train, val=val, out=again, workers=0)
    assert page.partition("A sample")[2] == again.read_text().partition("A sample")[2]


def test_without_a_page_or_held_out_images_nothing_of_it_is_said(folders):
    said = maekit.data(folders[0], workers=0).as_dict()
    assert not {"near_duplicates", "shared", "dark", "blurred", "constant"} & said.keys()
    assert "shared" not in maekit.data(folders[0], workers=0, images=3, val="").as_dict()


def test_held_out_images_that_are_nowhere_else_are_said_to_be_so(folders, tmp_path):
    train, val = folders
    maekit.data([train / "0.png"], val=val, out=tmp_path / "c.html", workers=0)
    assert "None, as far as bytes and a perceptual hash tell." in (tmp_path / "c.html").read_text()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 7])
def test_any_channels_and_depth(crops, dtype, channels):
    pixels = tensor(crops[0])[:1].repeat(channels, 1, 1)
    pixels = pixels if dtype is torch.uint8 else pixels / 255
    same, other = look(pixels), look(tensor(crops[0])[:1])
    assert abs(same.light - other.light) < 1e-5
    assert (same.bits == other.bits).all()


def test_images_are_near_by_twenty_bits_and_not_by_more(crops):
    one = look(tensor(crops[10]))
    bits = np.unpackbits(one.bits)
    for flipped, together in ((20, [[0, 1]]), (21, [])):
        other = bits.copy()
        other[:flipped] ^= 1
        assert near([one, type(one)(np.packbits(other), 0.5, 0.2, None)]) == together


def test_what_is_plain_is_near_nothing():
    plain = look(torch.zeros(3, 20, 20))
    assert near([plain, plain]) == []
    assert near([]) == []
    assert look(torch.zeros(1, 1, 1)).constant


def test_images_of_few_pixels_are_not_compared():
    noise = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0))
    assert near([look(noise)] * 2) == [[0, 1]]
    assert near([look(noise[:, :31])] * 2) == []


def test_small_images_are_not_judged_by_their_blur():
    ramp = torch.linspace(0, 1, 40).expand(3, 40, 40)
    assert look(ramp).sharp is None
    assert look(torch.linspace(0, 1, 200).expand(3, 200, 200)).blurred


def test_a_page_that_cannot_be_written_is_said_before_the_work(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("maekit.inference.doctor.examine", None)
    with pytest.raises(UsageError, match=r"ends in \.html"):
        run(DataOptions(source=str(folders[0]), out=str(tmp_path / "data.png")), write)
    with pytest.raises(StorageError):
        run(DataOptions(source=str(folders[0]), out=str(tmp_path / "none" / "data.html")), write)


def test_a_page_of_images_none_of_which_can_be_read(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "bad.png").write_text("no image")
    with pytest.raises(DataError, match="none of its 1 images can be read"):
        maekit.data(tmp_path / "images", out=tmp_path / "data.html", workers=0)
    assert "Unreadable: 1" in (tmp_path / "data.html").read_text()
