"""Cutting images into patches and putting them together again."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maekit.errors import ModelError
from maekit.patches import patchify, split, take, take_patches, unpatchify

sides = st.integers(1, 4)


def random_images(n, channels, height, width):
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(0))


@given(rows=sides, columns=sides, unit=st.tuples(sides, sides), channels=st.integers(1, 5))
def test_unpatchify_undoes_patchify(rows, columns, unit, channels):
    images = random_images(2, channels, rows * unit[0], columns * unit[1])
    patches = patchify(images, unit)
    assert patches.shape == (2, rows * columns, unit[0] * unit[1] * channels)
    assert torch.equal(unpatchify(patches, unit, (rows, columns)), images)


def test_a_patch_lists_its_rows_then_columns_then_channels():
    images = random_images(1, 3, 4, 9)
    second_row_third_column = patchify(images, (2, 3))[0, 5]
    assert torch.equal(second_row_third_column, images[0, :, 2:4, 6:9].permute(1, 2, 0).flatten())


@given(rows=sides, columns=sides, unit=st.tuples(sides, sides), channels=st.integers(1, 5), data=st.data())
def test_taking_some_patches_is_cutting_all_and_gathering(rows, columns, unit, channels, data):
    images = random_images(2, channels, rows * unit[0], columns * unit[1])
    number = st.integers(0, rows * columns - 1)
    index = torch.tensor(data.draw(st.lists(st.tuples(number, number), min_size=1, max_size=5))).T
    assert torch.equal(take_patches(images, unit, index), take(patchify(images, unit), index))


def test_split_numbers_visible_and_hidden_in_ascending_order():
    masked = torch.tensor([[True, False, True, False], [False, False, True, True]])
    for visible, hidden in (split(masked), split(masked, hidden=2)):
        assert visible.tolist() == [[1, 3], [0, 1]]
        assert hidden.tolist() == [[0, 2], [2, 3]]


@pytest.mark.parametrize(
    ("masked", "words"),
    [
        (torch.tensor([[True, False], [True, True]]), "here 1 to 2"),
        (torch.zeros(2, 4, dtype=torch.bool), "here 0 of 4"),
        (torch.ones(2, 4, dtype=torch.bool), "here 4 of 4"),
        (torch.ones(2, 4), r"must be bool \[N, L\]"),
        (torch.ones(4, dtype=torch.bool), r"must be bool \[N, L\]"),
    ],
    ids=["unequal rows", "none hidden", "all hidden", "not bool", "one row"],
)
def test_split_refuses_masks_that_do_not_make_a_batch(masked, words):
    with pytest.raises(ModelError, match=words):
        split(masked)


@pytest.mark.parametrize(
    ("height", "width", "words"),
    [
        (30, 32, "height 30 is not a multiple of the 16-px patch; take 16 or 32"),
        (32, 8, "width 8 is not a multiple of the 16-px patch; take 16"),
    ],
)
def test_sizes_that_patches_do_not_divide_are_refused_with_sizes_that_work(height, width, words):
    with pytest.raises(ModelError, match=words):
        patchify(torch.zeros(1, 3, height, width), (16, 16))
