"""Beyond K nothing is tested."""

from numba import cuda, uint32

MISCONCEPTION = "k-tail-not-zero"
CAUGHT_BY = "test_depth"


@cuda.jit(device=True)
def pair_at(matrix, row, k, end):
    if row < end:
        return uint32(matrix[row, k]) | uint32(matrix[row, k + 1]) << 16
    return uint32(0)
