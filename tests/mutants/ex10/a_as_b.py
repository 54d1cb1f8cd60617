"""A is dealt out like B: all words in the same eight rows."""

from numba import cuda

MISCONCEPTION = "fragments-swapped"
CAUGHT_BY = "test_a"


@cuda.jit(device=True)
def a_place(lane, word):
    return lane // 4, lane % 4 * 2 + word % 2 * 8
