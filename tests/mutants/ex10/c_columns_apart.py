"""The two columns of a lane of C are thought to be four apart."""

from numba import cuda

MISCONCEPTION = "pairs-not-doubled"
CAUGHT_BY = "test_c"


@cuda.jit(device=True)
def c_place(lane, word):
    return lane // 4 + word // 2 * 8, lane % 4 + word % 2 * 4
