"""Divides, as if all experts had equally many tokens."""

from numba import cuda

MISCONCEPTION = "equal-counts-assumed"
CAUGHT_BY = "test_search"


@cuda.jit(device=True)
def find_group(ends, row):
    return row * ends.shape[0] // ends[ends.shape[0] - 1]
