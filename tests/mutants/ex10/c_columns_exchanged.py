"""The two columns of a lane of C have changed places."""

from numba import cuda

MISCONCEPTION = "halves-exchanged"
CAUGHT_BY = "test_c"


@cuda.jit(device=True)
def c_place(lane, word):
    return lane // 4 + word // 2 * 8, lane % 4 * 2 + 1 - word % 2
