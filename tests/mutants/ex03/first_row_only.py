"""Only the first row of each pair is computed."""

from numba import cuda, float32

MISCONCEPTION = "second-row-not-written"
CAUGHT_BY = "test_one_expert"


@cuda.jit
def two_rows_kernel(x, w, ends, y):
    col, pair = cuda.grid(2)
    if col < y.shape[1]:
        for row in range(2 * pair, min(2 * pair + 1, y.shape[0])):
            group = find_group(ends, row)
            acc = float32(0.0)
            for k in range(x.shape[1]):
                acc += x[row, k] * w[group, col, k]
            y[row, col] = acc
