"""A block is stored over those before it."""

from numba import cuda

MISCONCEPTION = "sum-not-kept"
CAUGHT_BY = "test_blocks"


@cuda.jit(device=True)
def promote(acc, part, upper, lower):
    for i in range(0, SUMS, 4):
        acc[i] = upper * part[i]
        acc[i + 1] = upper * part[i + 1]
        acc[i + 2] = lower * part[i + 2]
        acc[i + 3] = lower * part[i + 3]
