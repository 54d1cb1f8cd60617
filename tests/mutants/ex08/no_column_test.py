"""Threads beyond the last column copy as well."""

from numba import cuda

MISCONCEPTION = "no-column-bounds"
CAUGHT_BY = "test_clean"


@cuda.jit
def gather_kernel(x, row_of, rows):
    col, token = cuda.grid(2)
    if token < x.shape[0]:
        for choice in range(2):
            row = row_of[token, choice]
            if row >= 0:
                rows[row, col] = x[token, col]
