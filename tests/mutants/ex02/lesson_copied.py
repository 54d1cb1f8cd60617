"""The lesson's kernel, with the lesson's arguments."""

from numba import cuda, float32

MISCONCEPTION = "lesson-copied"
CAUGHT_BY = "test_one_expert"


@cuda.jit
def expert_kernel(x, w, y):
    col, row = cuda.grid(2)
    if row < y.shape[0] and col < y.shape[1]:
        acc = float32(0.0)
        for k in range(x.shape[1]):
            acc += x[row, k] * w[col, k]
        y[row, col] = acc
