"""Words 2 and 3 of A are taken from k 0 to 7 again."""

from numba import cuda

MISCONCEPTION = "second-half-k"
CAUGHT_BY = "test_a"


@cuda.jit(device=True)
def a_place(lane, word):
    return lane // 4 + word % 2 * 8, lane % 4 * 2
