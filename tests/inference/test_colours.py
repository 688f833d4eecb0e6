"""Patch features as colours."""

import numpy as np
import torch

from maekit.inference.colours import colours


def test_like_patches_have_like_colours_and_order_is_that_of_the_grid():
    kinds = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    which = torch.tensor([0, 0, 1, 1, 2, 2])
    picture = colours(kinds[which], (2, 3))
    assert picture.shape == (2, 3, 3)
    assert picture.dtype == np.uint8
    flat = picture.reshape(6, 3).astype(int)
    for first in range(6):
        for second in range(6):
            assert (np.abs(flat[first] - flat[second]).max() <= 1) == (which[first] == which[second])


def test_it_is_the_principal_components_that_are_shown_whatever_their_signs():
    features = torch.randn(49, 5, generator=torch.Generator().manual_seed(1)) * torch.tensor([9.0, 4.0, 2.0, 0.1, 0.1])
    first = colours(features, (7, 7))
    assert abs(np.corrcoef(first[..., 0].ravel(), features[:, 0])[0, 1]) > 0.95
    assert abs(np.corrcoef(first[..., 1].ravel(), features[:, 1])[0, 1]) > 0.95
    assert (first == colours(features + 3, (7, 7))).mean() > 0.99
    mirrored = colours(-features, (7, 7))
    assert abs(np.corrcoef(first[..., 0].ravel(), mirrored[..., 0].ravel())[0, 1]) > 0.99


def test_features_that_do_not_differ_are_grey():
    assert (colours(torch.ones(4, 8), (2, 2)) == 128).all()
    one_direction = torch.outer(torch.arange(4.0), torch.ones(8))
    picture = colours(one_direction, (2, 2))
    assert set(picture[..., 0].ravel()) >= {0, 255}
    assert (picture[..., 1:] == 128).all()
    assert colours(torch.randn(4, 2), (2, 2)).shape == (2, 2, 3)
