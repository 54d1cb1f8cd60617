"""Right, but every partial sum goes through global memory."""

from numba import cuda, float32

MISCONCEPTION = "sums-in-global-memory"
CAUGHT_BY = "test_traffic"


@cuda.jit
def two_rows_kernel(x, w, ends, y):
    col, pair = cuda.grid(2)
    if col < y.shape[1]:
        for row in range(2 * pair, min(2 * pair + 2, y.shape[0])):
            group = find_group(ends, row)
            y[row, col] = float32(0.0)
            for k in range(x.shape[1]):
                y[row, col] += x[row, k] * w[group, col, k]
