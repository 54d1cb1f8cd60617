"""Words 1 and 2 of C have changed places."""

from numba import cuda

MISCONCEPTION = "fragment-words-swapped"
CAUGHT_BY = "test_c"


@cuda.jit(device=True)
def c_place(lane, word):
    return lane // 4 + word % 2 * 8, lane % 4 * 2 + word // 2
