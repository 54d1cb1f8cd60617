"""Also the weight of a choice without a row is in the sum that is divided by."""

from numba import cuda, float32

MISCONCEPTION = "dropped-share-kept"
CAUGHT_BY = "test_capacity"


@cuda.jit
def scatter_kernel(rows, row_of, weights, x, y):
    col, token = cuda.grid(2)
    if token < y.shape[0] and col < y.shape[1]:
        acc, total = float32(0.0), float32(0.0)
        for choice in range(2):
            row = row_of[token, choice]
            if row >= 0:
                acc += weights[token, choice] * rows[row, col]
        if row_of[token, 0] >= 0 or row_of[token, 1] >= 0:
            y[token, col] = acc / (weights[token, 0] + weights[token, 1])
        else:
            y[token, col] = x[token, col]
