"""The sums are kept in float64."""

from numba import cuda

MISCONCEPTION = "float64"
CAUGHT_BY = "test_compiles"


@cuda.jit
def scatter_kernel(rows, row_of, weights, x, y):
    col, token = cuda.grid(2)
    if token < y.shape[0] and col < y.shape[1]:
        acc, total = 0.0, 0.0
        for choice in range(2):
            row = row_of[token, choice]
            if row >= 0:
                acc += weights[token, choice] * rows[row, col]
                total += weights[token, choice]
        if total > 0.0:
            y[token, col] = acc / total
        else:
            y[token, col] = x[token, col]
