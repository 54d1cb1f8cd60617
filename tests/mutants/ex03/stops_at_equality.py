"""Stops as soon as it meets an equal end: of empty experts it takes any."""

from numba import cuda

MISCONCEPTION = "empty-not-skipped"
CAUGHT_BY = "test_search_empty"


@cuda.jit(device=True)
def find_group(ends, row):
    low, high = 0, ends.shape[0] - 1
    while low < high:
        middle = (low + high) // 2
        if row == ends[middle]:
            return middle + 1
        if row < ends[middle]:
            high = middle
        else:
            low = middle + 1
    return low
