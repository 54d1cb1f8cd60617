"""No test for columns."""

from numba import cuda, float32

MISCONCEPTION = "no-column-bounds"
CAUGHT_BY = "test_odd"


@cuda.jit
def two_rows_kernel(x, w, ends, y):
    col, pair = cuda.grid(2)
    if col >= 0:
        for row in range(2 * pair, min(2 * pair + 2, y.shape[0])):
            group = find_group(ends, row)
            acc = float32(0.0)
            for k in range(x.shape[1]):
                acc += x[row, k] * w[group, col, k]
            y[row, col] = acc
