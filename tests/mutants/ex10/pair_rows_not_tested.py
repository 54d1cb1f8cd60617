"""Rows beyond the end are read."""

from numba import cuda, uint32

MISCONCEPTION = "no-row-bounds"
CAUGHT_BY = "test_edges"


@cuda.jit(device=True)
def pair_at(matrix, row, k, end):
    low, high = uint32(0), uint32(0)
    if k < matrix.shape[1]:
        low = uint32(matrix[row, k])
    if k + 1 < matrix.shape[1]:
        high = uint32(matrix[row, k + 1])
    return low | high << 16
