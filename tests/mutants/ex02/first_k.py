"""The loop starts at 1."""

from numba import cuda, float32

MISCONCEPTION = "first-k-missing"
CAUGHT_BY = "test_one_expert"


@cuda.jit
def expert_kernel(x, w, bias, y):
    col, row = cuda.grid(2)
    if row < y.shape[0] and col < y.shape[1]:
        acc = bias[col]
        for k in range(1, x.shape[1]):
            acc += x[row, k] * w[k, col]
        y[row, col] = max(acc, float32(0.0))
