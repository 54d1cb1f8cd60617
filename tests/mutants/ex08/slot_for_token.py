"""A row is filled with the row of x that has the slot's number."""

from numba import cuda

MISCONCEPTION = "slot-taken-for-token"
CAUGHT_BY = "test_room"


@cuda.jit
def gather_kernel(x, row_of, rows):
    col, token = cuda.grid(2)
    if token < x.shape[0] and col < x.shape[1]:
        for choice in range(2):
            row = row_of[token, choice]
            if row >= 0:
                rows[row, col] = x[(2 * token + choice) % x.shape[0], col]
