"""Masks: how many patches they hide, where, and that they depend on an image's key alone."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from maekit.config import MaskConfig
from maekit.errors import ModelError
from maekit.masking import build, choose, draw, draw_on
from maekit.randomness import keys_tensor

DOCS = Path(__file__).parents[1] / "docs"
KINDS = ("random", "block", "grid", "one_in_2x2")
sides = st.integers(1, 20)


def keys(count, seed=0):
    return keys_tensor(seed, torch.arange(count))


def test_the_papers_mask_hides_147_of_196_patches():
    masked = draw(MaskConfig(ratio=0.75), (14, 14), keys(5))
    assert masked.shape == (5, 196)
    assert masked.dtype is torch.bool
    assert masked.sum(dim=1).tolist() == [147] * 5


@given(kind=st.sampled_from(KINDS), rows=sides, columns=sides, ratio=st.floats(0.05, 0.95), seed=st.integers(0, 99))
def test_every_kind_hides_the_announced_number_in_every_image(kind, rows, columns, ratio, seed):
    config = MaskConfig(kind=kind, ratio=0.75 if kind in ("grid", "one_in_2x2") else ratio)
    try:
        hidden = build(config, (rows, columns)).hidden
    except ModelError:
        assume(False)
    masked = draw(config, (rows, columns), keys(3, seed))
    assert masked.shape == (3, rows * columns)
    assert masked.sum(dim=1).tolist() == [hidden] * 3
    assert 0 < hidden < rows * columns


@given(ratio=st.floats(0.05, 0.95), patches=st.integers(2, 400))
def test_random_masks_hide_the_asked_share_to_one_patch(ratio, patches):
    try:
        hidden = build(MaskConfig(ratio=ratio), (1, patches)).hidden
    except ModelError:
        return
    assert abs(hidden - ratio * patches) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_an_images_mask_does_not_depend_on_the_batch_it_is_in(kind):
    config, all_keys = MaskConfig(kind=kind), keys(8)
    together = draw(config, (6, 8), all_keys)
    alone = torch.cat([draw(config, (6, 8), key[None]) for key in all_keys])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("kind", ["random", "block", "one_in_2x2"])
def test_other_images_and_epochs_get_other_masks(kind):
    config, images = MaskConfig(kind=kind), torch.arange(20)
    first, second = (draw(config, (8, 8), keys_tensor(0, epoch, images)) for epoch in (0, 1))
    assert len(torch.unique(first, dim=0)) == 20
    assert not (first == second).all(dim=1).any()


def test_random_masks_hide_every_patch_and_every_pair_equally_often():
    masked = draw(MaskConfig(ratio=0.75), (4, 4), keys(8000)).double()
    assert (masked.mean(dim=0) - 0.75).abs().max() < 0.025  # five standard errors of 0.0048
    pairs = masked.T @ masked / len(masked)
    off_diagonal = pairs[~torch.eye(16, dtype=torch.bool)]
    assert (off_diagonal - 0.75 * 11 / 15).abs().max() < 0.03


def test_one_in_2x2_leaves_one_patch_of_every_square_visible():
    masked = draw(MaskConfig(kind="one_in_2x2"), (6, 4), keys(400)).view(400, 3, 2, 2, 2)
    squares = masked.transpose(2, 3).flatten(3)
    assert (squares.sum(dim=3) == 3).all()
    assert ((~squares).double().mean(dim=(0, 1, 2)) - 0.25).abs().max() < 0.05


def test_grid_leaves_every_second_patch_of_every_second_row_visible():
    masked = draw(MaskConfig(kind="grid", ratio=0.75), (5, 4), keys(2))
    visible = [(number // 4, number % 4) for number in range(20) if not masked[1, number]]
    assert visible == [(row, column) for row in (0, 2, 4) for column in (0, 2)]


def test_blocks_hide_neighbours_together():
    def neighbours_alike(kind):
        masked = draw(MaskConfig(kind=kind, ratio=0.5), (14, 14), keys(50)).view(50, 14, 14)
        return (masked[:, :, 1:] == masked[:, :, :-1]).double().mean()

    assert neighbours_alike("block") > neighbours_alike("random") + 0.2


@pytest.mark.parametrize(
    ("config", "grid", "words"),
    [
        (MaskConfig(ratio=0.99), (2, 2), "hides 4 of 4"),
        (MaskConfig(kind="one_in_2x2"), (3, 4), "needs an even grid; the image has 3x4"),
        (MaskConfig(kind="one_in_2x2", ratio=0.6), (4, 4), "one_in_2x2 cannot hide that; take 0.75"),
        (MaskConfig(kind="grid", ratio=0.8), (4, 4), "grid cannot hide that; take 0.75"),
        (MaskConfig(kind="grid", ratio=0.75), (1, 1), "hides 0 of 1"),
    ],
)
def test_ratios_and_grids_that_do_not_fit_are_refused(config, grid, words):
    with pytest.raises(ModelError, match=words):
        build(config, grid)


def test_the_pictures_of_the_document_are_what_the_code_draws(tmp_path, monkeypatch):
    script = runpy.run_path(str(DOCS / "draw_masks.py"))
    monkeypatch.setitem(script["main"].__globals__, "FOLDER", tmp_path)
    script["main"]()
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn
    for name in drawn:
        with Image.open(tmp_path / name) as new, Image.open(DOCS / "pictures" / name) as kept:
            assert new.size == kept.size
            difference = np.abs(np.asarray(new.convert("RGB"), int) - np.asarray(kept.convert("RGB"), int))
            assert difference.mean() < 1, f"{name}: run python docs/draw_masks.py"  # fonts may differ in a few pixels


def test_choosing_some_of_the_hidden_keeps_their_order_and_treats_all_alike():
    index = torch.arange(10, 20).expand(4000, -1)
    chosen = choose(index, 4, keys(4000))
    assert (chosen[:, 1:] > chosen[:, :-1]).all()
    share = torch.bincount(chosen.flatten(), minlength=20)[10:] / 4000
    assert (share - 0.4).abs().max() < 0.04


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("planes", [1, 3])
def test_masks_for_a_device_are_those_of_their_keys(kind, planes):
    mask = build(MaskConfig(kind=kind), (12, 4), planes)
    masked, sent = draw_on(torch.device("cpu"), mask, keys(5))
    assert torch.equal(masked, mask.draw(keys(5)))
    assert torch.equal(sent, keys(5))
