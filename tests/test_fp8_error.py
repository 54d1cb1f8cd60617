"""The error study: what is recorded is what its command makes, and says what the lesson says."""

import itertools
import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from gemm_lessons import scale_pictures
from gemm_lessons.measure import fp8_error
from gemm_lessons.measure.fp8_error import BLOCKS, KS, OUTLIERS, SUMS, load, rounding, summation

ROUNDINGS, SUMMATIONS = load()


def find(block, outlier, number="e4m3", K=2048):
    (found,) = (
        one for one in ROUNDINGS if (one.block, one.outlier, one.number, one.K) == (block, outlier, number, K)
    )
    return found


@pytest.mark.parametrize(
    ("number", "block", "outlier"), [("e4m3", "1 x 128", 1e5), ("int8", "whole row", 10.0)]
)
def test_the_recorded_rounding_errors_can_be_made_again(number, block, outlier):
    again, recorded = rounding(number, block, outlier, 2048), find(block, outlier, number)
    assert again.error == pytest.approx(recorded.error, rel=1e-3)
    assert again.lost == pytest.approx(recorded.lost, rel=1e-3)


@pytest.mark.parametrize("kept", SUMS)
def test_the_recorded_summation_errors_can_be_made_again(kept):
    (recorded,) = (one for one in SUMMATIONS if (one.kept, one.K) == (kept, 1024))
    assert summation(kept, 1024).error == pytest.approx(recorded.error, rel=0.3)  # of float32: its order


def test_every_point_is_recorded():
    assert len(ROUNDINGS) == 2 * len(BLOCKS) * len(OUTLIERS) + len(BLOCKS) * (len(KS) - 1)
    assert len(SUMMATIONS) == len(SUMS) * len(KS)
    facts = json.loads(fp8_error.PATH.read_text(encoding="utf-8"))
    assert facts["command"].endswith(fp8_error.__name__)


def test_smaller_blocks_are_never_worse_and_far_better_beside_outliers():
    names = list(BLOCKS)
    for number in ("e4m3", "int8"):
        for outlier in OUTLIERS:
            errors = [find(name, outlier, number).error for name in names]
            assert all(small <= 1.02 * large for small, large in itertools.pairwise(errors))
    assert find("1 x 128", 1e5).error < find("whole tensor", 1e5).error / 5


def test_e4m3_bears_outliers_that_int8_does_not():
    assert find("whole tensor", 1000.0).error < 1.05 * find("whole tensor", 1.0).error
    assert find("whole tensor", 1000.0, "int8").error > 0.9
    assert find("1 x 128", 1.0, "int8").error < find("1 x 128", 1.0).error


def test_promotion_keeps_the_error_of_the_sum_from_growing_with_k():
    errors = {kept: [one.error for one in SUMMATIONS if one.kept == kept] for kept in SUMS}
    assert errors["14 bits, never promoted"][-1] > 50 * errors["14 bits, never promoted"][0]
    assert errors["14 bits, promoted every 128"][-1] < 1.5 * errors["14 bits, promoted every 128"][0]


def test_pictures_are_drawn():
    row = np.linspace(-1, 1, 300, dtype=np.float32)
    for figure in (
        scale_pictures.number_line(),
        scale_pictures.blocks_of_row(row, {"128": 128, "all": 300}),
        scale_pictures.promotion(300),
        scale_pictures.rounding_error(ROUNDINGS),
        scale_pictures.error_by_length(ROUNDINGS, SUMMATIONS),
    ):
        assert isinstance(figure, Figure)
        figure.canvas.draw()
