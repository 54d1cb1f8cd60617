"""A lane of C stores down a column, not along a row."""

from numba import cuda

MISCONCEPTION = "fragment-transposed"
CAUGHT_BY = "test_c"


@cuda.jit(device=True)
def c_place(lane, word):
    return lane % 4 * 2 + word % 2 + word // 2 * 8, lane // 4
