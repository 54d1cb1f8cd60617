"""Both rows read x of the first."""

from numba import cuda, float32

MISCONCEPTION = "x-of-first-row"
CAUGHT_BY = "test_one_expert"


@cuda.jit
def two_rows_kernel(x, w, ends, y):
    col, pair = cuda.grid(2)
    if col < y.shape[1]:
        for row in range(2 * pair, min(2 * pair + 2, y.shape[0])):
            group = find_group(ends, row)
            acc = float32(0.0)
            for k in range(x.shape[1]):
                acc += x[2 * pair, k] * w[group, col, k]
            y[row, col] = acc
