"""0.0 is a float64 for Numba."""

from numba import cuda

MISCONCEPTION = "float64"
CAUGHT_BY = "test_compiles"


@cuda.jit
def two_rows_kernel(x, w, ends, y):
    col, pair = cuda.grid(2)
    if col < y.shape[1]:
        for row in range(2 * pair, min(2 * pair + 2, y.shape[0])):
            group = find_group(ends, row)
            acc = 0.0
            for k in range(x.shape[1]):
                acc += x[row, k] * w[group, col, k]
            y[row, col] = acc
