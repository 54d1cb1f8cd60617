"""The bias of the row, not of the column."""

from numba import cuda, float32

MISCONCEPTION = "bias-by-row"
CAUGHT_BY = "test_one_expert"


@cuda.jit
def expert_kernel(x, w, bias, y):
    col, row = cuda.grid(2)
    if row < y.shape[0] and col < y.shape[1]:
        acc = bias[row]
        for k in range(x.shape[1]):
            acc += x[row, k] * w[k, col]
        y[row, col] = max(acc, float32(0.0))
