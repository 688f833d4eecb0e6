"""Position embeddings against their formulas, entry by entry."""

import math

import pytest
import torch

from maekit.errors import ModelError
from maekit.models import positions


def test_sincos_tells_the_column_then_the_row():
    table = positions.sincos((3, 5), 16)
    assert table.shape == (15, 16)
    for row in range(3):
        for column in range(5):
            rates = [10000 ** (-k / 4) for k in range(4)]
            expected = [
                wave(place * rate) for place in (column, row) for wave in (math.sin, math.cos) for rate in rates
            ]
            torch.testing.assert_close(table[row * 5 + column], torch.tensor(expected), atol=1e-6, rtol=0)


def test_sincos1d_alternates_sines_and_cosines():
    table = positions.sincos1d(7, 6)
    for number in range(7):
        expected = [
            (math.cos if channel % 2 else math.sin)(number / 10000 ** (channel // 2 * 2 / 6)) for channel in range(6)
        ]
        torch.testing.assert_close(table[number], torch.tensor(expected), atol=1e-6, rtol=0)


def test_prefix_tokens_have_zeros_before_a_sincos_table_and_the_first_numbers_of_a_1d_one():
    assert not positions.table("sincos", (2, 2), 8, prefix=2)[:2].any()
    assert torch.equal(positions.table("sincos1d", (2, 2), 8, prefix=1), positions.sincos1d(5, 8))


def test_learned_positions_start_small_and_random():
    table = positions.table("learned", (20, 20), 64, prefix=1)
    assert table.shape == (401, 64)
    assert float(table.std()) == pytest.approx(0.02, rel=0.05)


def test_a_width_that_four_does_not_divide_is_refused():
    with pytest.raises(ModelError, match="multiple of 4, not 18"):
        positions.sincos((2, 2), 18)
