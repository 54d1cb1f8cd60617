"""Both words of B are taken from k 0 to 7."""

from numba import cuda

MISCONCEPTION = "second-half-k"
CAUGHT_BY = "test_b"


@cuda.jit(device=True)
def b_place(lane, word):
    return lane // 4, lane % 4 * 2
