"""What has been promoted is scaled again with each block."""

from numba import cuda

MISCONCEPTION = "scaled-again"
CAUGHT_BY = "test_blocks"


@cuda.jit(device=True)
def promote(acc, part, upper, lower):
    for i in range(0, SUMS, 4):
        acc[i] = upper * (acc[i] + part[i])
        acc[i + 1] = upper * (acc[i + 1] + part[i + 1])
        acc[i + 2] = lower * (acc[i + 2] + part[i + 2])
        acc[i + 3] = lower * (acc[i + 3] + part[i + 3])
