"""A pair that K cuts in two is dropped as a whole."""

from numba import cuda, uint32

MISCONCEPTION = "k-tail-dropped"
CAUGHT_BY = "test_depth"


@cuda.jit(device=True)
def pair_at(matrix, row, k, end):
    if row < end and k + 1 < matrix.shape[1]:
        return uint32(matrix[row, k]) | uint32(matrix[row, k + 1]) << 16
    return uint32(0)
