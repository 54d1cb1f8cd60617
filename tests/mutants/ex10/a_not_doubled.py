"""Neighbouring lanes of A are one k apart, not two."""

from numba import cuda

MISCONCEPTION = "pairs-not-doubled"
CAUGHT_BY = "test_a"


@cuda.jit(device=True)
def a_place(lane, word):
    return lane // 4 + word % 2 * 8, lane % 4 + word // 2 * 8
