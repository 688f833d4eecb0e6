import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from maekit.errors import DataError, MaekitError, ModelError, StorageError, UsageError
from maekit.inference.picture import (
    HIDDEN_GREY,
    Pixels,
    Row,
    check_writable,
    grid,
    masked_panel,
    read_mask,
    save,
)


def flat(value: int, *shape: int) -> Pixels:
    return np.full(shape, value, np.uint8)


def colours(picture: Image.Image) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in np.asarray(picture).reshape(-1, 3)}


def columns_of(picture: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int]:
    """First and last column of the picture that holds this colour."""
    columns = np.flatnonzero((np.asarray(picture) == colour).all(-1).any(0))
    return int(columns[0]), int(columns[-1])


def test_panels_stand_in_order_and_small_ones_are_enlarged():
    row = Row(flat(10, 8, 8, 1), flat(60, 8, 8, 1), flat(110, 8, 8, 1))
    picture = grid([row], headings=("", "", ""))
    places = [columns_of(picture, (value,) * 3) for value in (10, 60, 110)]
    assert [last - first + 1 for first, last in places] == [160, 160, 160]
    assert places[0][1] < places[1][0] < places[1][1] < places[2][0]


def test_enlarging_keeps_every_pixel_a_whole_square():
    digit = np.arange(16, dtype=np.uint8).reshape(4, 4) * 10
    picture = np.asarray(grid([Row(digit, digit, digit)], headings=("", "", "")))[..., 0]
    for value in digit.ravel()[1:]:
        assert (picture == value).sum() >= 3 * 40 * 40


def test_large_panels_keep_their_size():
    row = Row(flat(10, 200, 300, 3), flat(60, 200, 300, 3), flat(110, 200, 300, 3))
    picture = grid([row], headings=("", "", ""))
    first, last = columns_of(picture, (60, 60, 60))
    assert last - first + 1 == 300


def test_rows_of_different_sizes_share_a_picture():
    square, wide = flat(10, 224, 224, 3), flat(60, 100, 400, 3)
    picture = grid([Row(square, square, square), Row(wide, wide, wide)])
    assert picture.width > 3 * 400
    assert {(10, 10, 10), (60, 60, 60)} <= colours(picture)


@pytest.mark.parametrize(
    ("pixel", "shown"),
    [
        ([70], (70, 70, 70)),
        ([10, 30], (20, 20, 20)),
        ([200, 100, 50], (200, 100, 50)),
        ([200, 100, 50, 7, 9], (200, 100, 50)),
    ],
)
def test_any_number_of_channels_is_shown(pixel: list[int], shown: tuple[int, int, int]):
    image = np.broadcast_to(np.asarray(pixel, np.uint8), (16, 16, len(pixel)))
    assert shown in colours(grid([Row(image, image, image)]))


def test_headings_and_caption_are_drawn_inside_the_picture():
    image = flat(128, 32, 32)
    row = Row(image, image, image)
    bare, headed = grid([row], headings=("", "", "")), grid([row])
    assert bare.size == headed.size
    assert (np.asarray(bare) != np.asarray(headed)).any()
    short, long = grid([row], caption="half hidden"), grid([row], caption="half hidden, " * 30 + "x" * 400)
    assert bare.height < short.height < long.height
    assert short.width == long.width == bare.width
    margin = np.asarray(long)[:, -20:]
    assert (margin == 255).all(), "a word wider than the picture is broken, not cut off"


@given(arrays.arrays(np.bool_, st.tuples(st.integers(1, 6), st.integers(1, 6))), st.integers(1, 5), st.integers(1, 4))
def test_masked_panel_hides_the_patches_and_nothing_else(masked: np.ndarray, patch: int, channels: int):
    rows, columns = masked.shape
    image = np.full((rows * patch, columns * 2 * patch, channels), 5, np.uint8)
    panel = masked_panel(image, masked)
    for row in range(rows):
        for column in range(columns):
            place = np.s_[row * patch : (row + 1) * patch, column * 2 * patch : (column + 1) * 2 * patch]
            assert (panel[place] == (HIDDEN_GREY if masked[row, column] else 5)).all()
    assert (image == 5).all(), "the image itself is left alone"


def test_masked_panel_refuses_a_mask_that_does_not_divide_the_image():
    with pytest.raises(ModelError, match="10x8 pixels does not divide into 4x4"):
        masked_panel(flat(0, 10, 8, 3), np.ones((4, 4), bool))


@pytest.mark.parametrize("name", ["picture.png", "picture.jpg", "PICTURE.JPEG"])
def test_saved_pictures_can_be_opened(tmp_path: Path, name: str):
    path = tmp_path / name
    save(Image.new("RGB", (40, 20), "#336699"), path)
    with Image.open(path) as picture:
        picture.load()
        assert picture.size == (40, 20)
        assert picture.format == ("PNG" if name.endswith("png") else "JPEG")
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("picture.gif", UsageError, "not as .gif"),
        ("picture", UsageError, "no suffix"),
        ("missing/picture.png", StorageError, "there is no folder"),
        ("folder.png", StorageError, "is a folder"),
    ],
)
def test_a_place_that_cannot_take_a_picture_is_refused_before_work(
    tmp_path: Path, name: str, error: type[MaekitError], words: str
):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(error, match=words) as caught:
        check_writable(tmp_path / name)
    assert "\n" not in str(caught.value)
    with pytest.raises(error):
        save(Image.new("RGB", (4, 4)), tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == ["folder.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused_before_work(tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="cannot be written"):
        check_writable(tmp_path / "picture.png")


def test_checking_leaves_an_older_picture_alone(tmp_path: Path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"older")
    check_writable(path)
    assert path.read_bytes() == b"older"
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]


def test_a_write_that_fails_leaves_the_older_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "picture.png"
    path.write_bytes(b"older")

    def disk_is_full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_is_full)
    with pytest.raises(StorageError, match="No space left on device"):
        save(Image.new("RGB", (4, 4)), path)
    assert path.read_bytes() == b"older"
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]


def test_more_rows_than_a_jpeg_can_hold_is_said_in_one_line(tmp_path: Path):
    with pytest.raises(StorageError, match="cannot be written") as caught:
        save(Image.new("L", (2, 70_000)), tmp_path / "picture.jpg")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@given(
    arrays.arrays(np.bool_, (3, 5)).filter(lambda masked: masked.any() and not masked.all()),
    st.integers(1, 7),
    st.sampled_from(["1", "L", "RGB", "RGBA", "P", "I;16"]),
)
def test_a_painted_mask_is_read_at_any_size_and_mode(
    tmp_path_factory: pytest.TempPathFactory, masked: np.ndarray, scale: int, mode: str
):
    path = tmp_path_factory.getbasetemp() / "mask.png"
    painted = masked.repeat(scale, 0).repeat(scale, 1)
    if mode == "I;16":
        Image.fromarray(painted.astype(np.uint16) * 65535).save(path)
    else:
        Image.fromarray(painted.astype(np.uint8) * 255).convert(mode).save(path)
    assert (read_mask(path, masked.shape) == masked).all()


def test_a_coarse_mask_covers_a_finer_grid(tmp_path: Path):
    Image.fromarray(np.array([[255, 0]], np.uint8)).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png", (2, 4)).tolist() == [[True, True, False, False]] * 2


@pytest.mark.parametrize(("white_rows", "hidden"), [(4, False), (5, True), (9, True)])
def test_a_patch_is_hidden_from_half_of_its_area_on(tmp_path: Path, white_rows: int, hidden: bool):
    painted = np.zeros((10, 30), np.uint8)
    painted[:white_rows, :10] = 255
    painted[1:, 10:20] = 255
    painted[0, 20:] = 255
    Image.fromarray(painted).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png", (1, 3)).tolist() == [[hidden, True, False]]


def test_a_mask_kept_as_an_array_is_read(tmp_path: Path):
    np.save(tmp_path / "mask.npy", np.array([[0, 65535]], np.uint16))
    assert read_mask(tmp_path / "mask.npy", (1, 2)).tolist() == [[False, True]]


@pytest.mark.parametrize(("grey", "found"), [(255, "every patch"), (0, "no patch")])
def test_a_mask_of_one_colour_is_refused(tmp_path: Path, grey: int, found: str):
    Image.new("L", (8, 8), grey).save(tmp_path / "mask.png")
    with pytest.raises(ModelError, match=rf"mask.png: hides {found} of 4x4"):
        read_mask(tmp_path / "mask.png", (4, 4))


@pytest.mark.parametrize("content", [None, b"", b"white, please", b"\x89PNG\r\n\x1a\n" + b"\0" * 20])
def test_a_mask_that_is_no_picture_is_refused(tmp_path: Path, content: bytes | None):
    path = tmp_path / "mask.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"mask\.png") as caught:
        read_mask(path, (4, 4))
    assert "\n" not in str(caught.value)


def test_a_huge_mask_is_refused_before_it_is_decoded(tmp_path: Path):
    Image.new("1", (5000, 5000)).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match=r"mask\.png: the mask cannot be read \(5000x5000"):
        read_mask(tmp_path / "mask.png", (4, 4))
