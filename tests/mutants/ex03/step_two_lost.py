"""A thread starts at its number, not at twice its number: pairs overlap."""

from numba import cuda, float32

MISCONCEPTION = "pairs-overlap"
CAUGHT_BY = "test_ragged"


@cuda.jit
def two_rows_kernel(x, w, ends, y):
    col, pair = cuda.grid(2)
    if col < y.shape[1]:
        for row in range(pair, min(pair + 2, y.shape[0])):
            group = find_group(ends, row)
            acc = float32(0.0)
            for k in range(x.shape[1]):
                acc += x[row, k] * w[group, col, k]
            y[row, col] = acc
