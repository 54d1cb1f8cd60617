"""Partial sums are added as they are."""

from numba import cuda

MISCONCEPTION = "scale-missing"
CAUGHT_BY = "test_one_block"


@cuda.jit(device=True)
def promote(acc, part, upper, lower):
    for i in range(0, SUMS, 4):
        acc[i] += part[i]
        acc[i + 1] += part[i + 1]
        acc[i + 2] += part[i + 2]
        acc[i + 3] += part[i + 3]
