"""The second value of a pair is read wherever the first one is."""

from numba import cuda, uint32

MISCONCEPTION = "pair-crosses-row"
CAUGHT_BY = "test_depth"


@cuda.jit(device=True)
def pair_at(matrix, row, k, end):
    if row < end and k < matrix.shape[1]:
        return uint32(matrix[row, k]) | uint32(matrix[row, k + 1]) << 16
    return uint32(0)
