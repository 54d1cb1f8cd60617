"""A is read as its transpose."""

from numba import cuda

MISCONCEPTION = "fragment-transposed"
CAUGHT_BY = "test_a"


@cuda.jit(device=True)
def a_place(lane, word):
    return lane % 4 * 2 + word % 2 * 8, lane // 4 + word // 2 * 8
