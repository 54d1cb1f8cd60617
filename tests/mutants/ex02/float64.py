"""0.0 is a float64 for Numba, and so is everything added to it."""

from numba import cuda, float32

MISCONCEPTION = "float64"
CAUGHT_BY = "test_compiles"


@cuda.jit
def expert_kernel(x, w, bias, y):
    col, row = cuda.grid(2)
    if row < y.shape[0] and col < y.shape[1]:
        acc = 0.0 + bias[col]
        for k in range(x.shape[1]):
            acc += x[row, k] * w[k, col]
        y[row, col] = max(acc, float32(0.0))
