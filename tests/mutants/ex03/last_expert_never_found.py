"""The range of candidates ends one too early."""

from numba import cuda

MISCONCEPTION = "last-expert-missing"
CAUGHT_BY = "test_search"


@cuda.jit(device=True)
def find_group(ends, row):
    low, high = 0, ends.shape[0] - 2
    while low < high:
        middle = (low + high) // 2
        if row < ends[middle]:
            high = middle
        else:
            low = middle + 1
    return low
