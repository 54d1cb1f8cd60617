"""The lesson's kernel: a thread computes one row."""

from numba import cuda, float32

MISCONCEPTION = "one-row-per-thread"
CAUGHT_BY = "test_one_expert"


@cuda.jit
def two_rows_kernel(x, w, ends, y):
    col, row = cuda.grid(2)
    if col < y.shape[1]:
        if row < y.shape[0]:
            group = find_group(ends, row)
            acc = float32(0.0)
            for k in range(x.shape[1]):
                acc += x[row, k] * w[group, col, k]
            y[row, col] = acc
