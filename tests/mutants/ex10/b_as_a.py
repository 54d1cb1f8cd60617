"""Word 1 of B is taken from eight rows below, as that of A."""

from numba import cuda

MISCONCEPTION = "fragments-swapped"
CAUGHT_BY = "test_b"


@cuda.jit(device=True)
def b_place(lane, word):
    return lane // 4 + word * 8, lane % 4 * 2
