"""x of the grid taken for rows, while the launch has columns there."""

from numba import cuda, float32

MISCONCEPTION = "rows-and-columns-swapped"
CAUGHT_BY = "test_one_expert"


@cuda.jit
def expert_kernel(x, w, bias, y):
    row, col = cuda.grid(2)
    if row < y.shape[0] and col < y.shape[1]:
        acc = bias[col]
        for k in range(x.shape[1]):
            acc += x[row, k] * w[k, col]
        y[row, col] = max(acc, float32(0.0))
