"""Lanes 0 to 7 of B go down a column."""

from numba import cuda

MISCONCEPTION = "lane-map"
CAUGHT_BY = "test_b"


@cuda.jit(device=True)
def b_place(lane, word):
    return lane % 8, lane // 8 * 2 + word * 8
