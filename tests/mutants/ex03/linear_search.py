"""Right, but reads one end after the other."""

from numba import cuda

MISCONCEPTION = "search-too-slow"
CAUGHT_BY = "test_search_budget"


@cuda.jit(device=True)
def find_group(ends, row):
    group = 0
    while ends[group] <= row:
        group += 1
    return group
