"""Another binary search: half-open range, high first."""

from numba import cuda

EXERCISE = "ex03_concatenated"


@cuda.jit(device=True)
def find_group(ends, row):
    low = -1
    high = ends.shape[0] - 1
    while high - low > 1:
        middle = (low + high) >> 1
        if ends[middle] > row:
            high = middle
        else:
            low = middle
    return high
