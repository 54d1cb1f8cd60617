"""No test for columns."""

from numba import cuda, float32

MISCONCEPTION = "no-column-bounds"
CAUGHT_BY = "test_edges"


@cuda.jit
def expert_kernel(x, w, bias, y):
    col, row = cuda.grid(2)
    if row < y.shape[0]:
        acc = bias[col]
        for k in range(x.shape[1]):
            acc += x[row, k] * w[k, col]
        y[row, col] = max(acc, float32(0.0))
