"""The second half of A is thought to be the row below."""

from numba import cuda

MISCONCEPTION = "second-half-row"
CAUGHT_BY = "test_a"


@cuda.jit(device=True)
def a_place(lane, word):
    return lane // 4 * 2 + word % 2, lane % 4 * 2 + word // 2 * 8
