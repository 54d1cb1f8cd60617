"""k is returned first, then n."""

from numba import cuda

MISCONCEPTION = "k-before-n"
CAUGHT_BY = "test_b"


@cuda.jit(device=True)
def b_place(lane, word):
    return lane % 4 * 2 + word * 8, lane // 4
