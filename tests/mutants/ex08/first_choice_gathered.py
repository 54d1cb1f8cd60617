"""Only the first choice gets a copy."""

from numba import cuda

MISCONCEPTION = "second-row-empty"
CAUGHT_BY = "test_room"


@cuda.jit
def gather_kernel(x, row_of, rows):
    col, token = cuda.grid(2)
    if token < x.shape[0] and col < x.shape[1]:
        row = row_of[token, 0]
        if row >= 0:
            rows[row, col] = x[token, col]
