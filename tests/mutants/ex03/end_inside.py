"""The end of an expert is counted as its own row."""

from numba import cuda

MISCONCEPTION = "end-counted-as-inside"
CAUGHT_BY = "test_search"


@cuda.jit(device=True)
def find_group(ends, row):
    low, high = 0, ends.shape[0] - 1
    while low < high:
        middle = (low + high) // 2
        if row <= ends[middle]:
            high = middle
        else:
            low = middle + 1
    return low
