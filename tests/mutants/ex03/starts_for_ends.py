"""The lesson's search, which wants offsets that start at 0."""

from numba import cuda

MISCONCEPTION = "ends-taken-for-starts"
CAUGHT_BY = "test_search"


@cuda.jit(device=True)
def find_group(ends, row):
    low, high = 0, ends.shape[0] - 1
    while low < high:
        middle = (low + high + 1) // 2
        if ends[middle] <= row:
            low = middle
        else:
            high = middle - 1
    return low
