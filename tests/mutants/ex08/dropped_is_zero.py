"""A token without a row becomes zero."""

from numba import cuda, float32

MISCONCEPTION = "dropped-token-lost"
CAUGHT_BY = "test_crowd"


@cuda.jit
def scatter_kernel(rows, row_of, weights, x, y):
    col, token = cuda.grid(2)
    if token < y.shape[0] and col < y.shape[1]:
        acc, total = float32(0.0), float32(0.0)
        for choice in range(2):
            row = row_of[token, choice]
            if row >= 0:
                acc += weights[token, choice] * rows[row, col]
                total += weights[token, choice]
        if total > float32(0.0):
            y[token, col] = acc / total
        else:
            y[token, col] = float32(0.0)
