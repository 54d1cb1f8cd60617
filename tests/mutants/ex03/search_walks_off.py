"""Walks on while the end equals the row it looks for, also past the last expert."""

from numba import cuda

MISCONCEPTION = "search-range"
CAUGHT_BY = "test_search_empty"


@cuda.jit(device=True)
def find_group(ends, row):
    group = 0
    while ends[group] <= row:
        group += 1
    while group < ends.shape[0] and ends[group] == ends[group + 1]:
        group += 1
    return group
