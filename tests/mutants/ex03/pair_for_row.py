"""Searches for the number of the pair."""

from numba import cuda, float32

MISCONCEPTION = "pair-taken-for-row"
CAUGHT_BY = "test_borders"


@cuda.jit(device=True)
def find_group(ends, pair):
    low, high = 0, ends.shape[0] - 1
    while low < high:
        middle = (low + high) // 2
        if row < ends[middle]:
            high = middle
        else:
            low = middle + 1
    return low


@cuda.jit
def two_rows_kernel(x, w, ends, y):
    col, pair = cuda.grid(2)
    if col < y.shape[1]:
        for row in range(2 * pair, min(2 * pair + 2, y.shape[0])):
            group = find_group(ends, pair)
            acc = float32(0.0)
            for k in range(x.shape[1]):
                acc += x[row, k] * w[group, col, k]
            y[row, col] = acc
