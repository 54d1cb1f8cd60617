"""low = middle: two candidates stay two."""

from numba import cuda

MISCONCEPTION = "search-never-ends"
CAUGHT_BY = "test_search"


@cuda.jit(device=True)
def find_group(ends, row):
    low, high = 0, ends.shape[0] - 1
    while low < high:
        middle = (low + high) // 2
        if row < ends[middle]:
            high = middle
        else:
            low = middle
    return low
