"""Adds to y, which nobody has set to zero."""

from numba import cuda, float32

MISCONCEPTION = "sums-in-output"
CAUGHT_BY = "test_one_expert"


@cuda.jit
def expert_kernel(x, w, bias, y):
    col, row = cuda.grid(2)
    if row < y.shape[0] and col < y.shape[1]:
        for k in range(x.shape[1]):
            y[row, col] += x[row, k] * w[k, col]
        y[row, col] = max(y[row, col] + bias[col], float32(0.0))
