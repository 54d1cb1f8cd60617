"""The last row of an expert goes to the next one."""

from numba import cuda

MISCONCEPTION = "end-too-early"
CAUGHT_BY = "test_search"


@cuda.jit(device=True)
def find_group(ends, row):
    low, high = 0, ends.shape[0] - 1
    while low < high:
        middle = (low + high) // 2
        if row + 1 < ends[middle]:
            high = middle
        else:
            low = middle + 1
    return low
