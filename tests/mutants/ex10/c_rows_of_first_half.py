"""Words 2 and 3 of C are stored in the rows of words 0 and 1."""

from numba import cuda

MISCONCEPTION = "second-half-row"
CAUGHT_BY = "test_c"


@cuda.jit(device=True)
def c_place(lane, word):
    return lane // 4, lane % 4 * 2 + word % 2
