"""Moves on by one expert at most, wherever the end is."""

from numba import cuda

MISCONCEPTION = "empty-not-skipped"
CAUGHT_BY = "test_search_empty"


@cuda.jit(device=True)
def find_group(ends, row):
    group = 0
    for g in range(ends.shape[0] - 1):
        if row >= ends[g] and (g == 0 or ends[g] > ends[g - 1]):
            group += 1
    return group
