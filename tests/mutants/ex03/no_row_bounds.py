"""No test for rows."""

from numba import cuda, float32

MISCONCEPTION = "no-row-bounds"
CAUGHT_BY = "test_odd"


@cuda.jit
def two_rows_kernel(x, w, ends, y):
    col, pair = cuda.grid(2)
    if col < y.shape[1]:
        for row in range(2 * pair, 2 * pair + 2):
            group = find_group(ends, row)
            acc = float32(0.0)
            for k in range(x.shape[1]):
                acc += x[row, k] * w[group, col, k]
            y[row, col] = acc
