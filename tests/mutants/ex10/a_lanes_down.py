"""Lanes 0 to 7 of A go down a column."""

from numba import cuda

MISCONCEPTION = "lane-map"
CAUGHT_BY = "test_a"


@cuda.jit(device=True)
def a_place(lane, word):
    return lane % 8 + word % 2 * 8, lane // 8 * 2 + word // 2 * 8
