"""ReLU of every partial sum."""

from numba import cuda, float32

MISCONCEPTION = "relu-inside-the-loop"
CAUGHT_BY = "test_one_expert"


@cuda.jit
def expert_kernel(x, w, bias, y):
    col, row = cuda.grid(2)
    if row < y.shape[0] and col < y.shape[1]:
        acc = bias[col]
        for k in range(x.shape[1]):
            acc = max(acc + x[row, k] * w[k, col], float32(0.0))
        y[row, col] = max(acc, float32(0.0))
