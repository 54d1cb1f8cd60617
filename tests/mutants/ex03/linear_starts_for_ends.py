"""The lesson's linear search, with offsets[group + 1]."""

from numba import cuda

MISCONCEPTION = "ends-taken-for-starts"
CAUGHT_BY = "test_search"


@cuda.jit(device=True)
def find_group(ends, row):
    group = 0
    while group + 1 < ends.shape[0] and ends[group + 1] <= row:
        group += 1
    return group
