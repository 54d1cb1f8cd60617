"""The bias is added in every round of the loop."""

from numba import cuda, float32

MISCONCEPTION = "bias-for-each-k"
CAUGHT_BY = "test_one_expert"


@cuda.jit
def expert_kernel(x, w, bias, y):
    col, row = cuda.grid(2)
    if row < y.shape[0] and col < y.shape[1]:
        acc = float32(0.0)
        for k in range(x.shape[1]):
            acc += x[row, k] * w[k, col] + bias[col]
        y[row, col] = max(acc, float32(0.0))
