"""ReLU of the product, then the bias."""

from numba import cuda, float32

MISCONCEPTION = "relu-before-bias"
CAUGHT_BY = "test_one_expert"


@cuda.jit
def expert_kernel(x, w, bias, y):
    col, row = cuda.grid(2)
    if row < y.shape[0] and col < y.shape[1]:
        acc = float32(0.0)
        for k in range(x.shape[1]):
            acc += x[row, k] * w[k, col]
        y[row, col] = max(acc, float32(0.0)) + bias[col]
