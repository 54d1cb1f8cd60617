"""The first four sums meet the upper scale, the others the lower."""

from numba import cuda

MISCONCEPTION = "scale-of-other-row"
CAUGHT_BY = "test_one_block"


@cuda.jit(device=True)
def promote(acc, part, upper, lower):
    for i in range(4):
        acc[i] += upper * part[i]
        acc[i + 4] += lower * part[i + 4]
