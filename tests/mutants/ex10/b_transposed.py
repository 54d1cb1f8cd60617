"""B is taken for [k, n]: the lane's quotient is its k."""

from numba import cuda

MISCONCEPTION = "fragment-transposed"
CAUGHT_BY = "test_b"


@cuda.jit(device=True)
def b_place(lane, word):
    return lane % 4 * 2, lane // 4 + word * 8
