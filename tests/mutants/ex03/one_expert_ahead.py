"""Returns the expert after."""

from numba import cuda

MISCONCEPTION = "off-by-one-expert"
CAUGHT_BY = "test_search"


@cuda.jit(device=True)
def find_group(ends, row):
    low, high = 0, ends.shape[0] - 1
    while low < high:
        middle = (low + high) // 2
        if row < ends[middle]:
            high = middle
        else:
            low = middle + 1
    return min(low + 1, ends.shape[0] - 1)
