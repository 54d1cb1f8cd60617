"""Words 1 and 3 of A are taken from the rows of words 0 and 2."""

from numba import cuda

MISCONCEPTION = "second-half-row"
CAUGHT_BY = "test_a"


@cuda.jit(device=True)
def a_place(lane, word):
    return lane // 4, lane % 4 * 2 + word // 2 * 8
