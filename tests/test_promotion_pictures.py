"""The pictures of lesson 12 show what sums, scales and consumers do."""

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure

from gemm_lessons import promotion_pictures
from gemm_lessons.promotion_pictures import PRODUCT, busy_of, error_of, running_errors, sums_in, turns_of


def test_errors_grow_unless_sums_are_promoted():
    never, often = running_errors(2048, 2048), running_errors(2048, 128)
    np.testing.assert_array_equal(never[:4], often[:4])
    assert never[-1] > 3 * never[3]
    assert often[-1] < 1.5 * often[3]
    assert error_of(2048, 2048) == never[-1]


def test_every_sum_of_a_warpgroup_belongs_to_one_thread():
    held = [place for thread in range(128) for place in sums_in(thread)]
    assert len(held) == len(set(held)) == 64 * 64
    for thread in (0, 5, 127):
        rows, columns = zip(*sums_in(thread), strict=True)
        assert len(set(rows)) == 2
        assert len(set(columns)) == 16


@pytest.mark.parametrize(("consumers", "move"), [(1, 3), (2, 3), (2, 8), (3, 0)])
def test_one_product_at_a_time(consumers, move):
    spans = turns_of(consumers, move, num_parts=4)
    products = sorted((s.begins, s.ends) for s in spans if s.what == "multiplies")
    assert len(products) == 4 * consumers
    assert all(later[0] >= earlier[1] for earlier, later in itertools.pairwise(products))
    for consumer in range(consumers):
        mine = [span for span in spans if span.consumer == consumer]
        assert all(later.begins == earlier.ends for earlier, later in itertools.pairwise(mine))


def test_two_consumers_hide_moving_that_takes_no_longer_than_a_product():
    assert busy_of(turns_of(1, PRODUCT)) < 0.6
    assert busy_of(turns_of(2, PRODUCT)) == 1
    assert busy_of(turns_of(2, 2 * PRODUCT)) < 0.75


def test_pictures_are_drawn():
    for figure in (
        promotion_pictures.along(),
        promotion_pictures.along(32),
        promotion_pictures.sums_of(),
        promotion_pictures.sums_of(127),
        promotion_pictures.turns(),
        promotion_pictures.turns(1, 0),
        promotion_pictures.turns(3, 12),
    ):
        assert isinstance(figure, Figure)
        figure.canvas.draw()
