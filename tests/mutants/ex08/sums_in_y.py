"""The sum is kept in y, in global memory."""

from numba import cuda, float32

MISCONCEPTION = "sums-in-global-memory"
CAUGHT_BY = "test_once"


@cuda.jit
def scatter_kernel(rows, row_of, weights, x, y):
    col, token = cuda.grid(2)
    if token < y.shape[0] and col < y.shape[1]:
        total = float32(0.0)
        y[token, col] = float32(0.0)
        for choice in range(2):
            row = row_of[token, choice]
            if row >= 0:
                y[token, col] += weights[token, choice] * rows[row, col]
                total += weights[token, choice]
        if total > float32(0.0):
            y[token, col] /= total
        else:
            y[token, col] = x[token, col]
