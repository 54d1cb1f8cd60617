"""-1 is taken for a row."""

from numba import cuda

MISCONCEPTION = "no-row-taken-for-a-row"
CAUGHT_BY = "test_capacity"


@cuda.jit
def gather_kernel(x, row_of, rows):
    col, token = cuda.grid(2)
    if token < x.shape[0] and col < x.shape[1]:
        for choice in range(2):
            row = row_of[token, choice]
            rows[row, col] = x[token, col]
