"""K of the first example written as a number."""

from numba import cuda, float32

MISCONCEPTION = "number-for-a-shape"
CAUGHT_BY = "test_edges"


@cuda.jit
def expert_kernel(x, w, bias, y):
    col, row = cuda.grid(2)
    if row < y.shape[0] and col < y.shape[1]:
        acc = bias[col]
        for k in range(6):
            acc += x[row, k] * w[k, col]
        y[row, col] = max(acc, float32(0.0))
