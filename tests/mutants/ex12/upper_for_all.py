"""All sums of a lane meet the scale of its upper row."""

from numba import cuda

MISCONCEPTION = "scale-of-other-row"
CAUGHT_BY = "test_one_block"


@cuda.jit(device=True)
def promote(acc, part, upper, lower):
    for i in range(0, SUMS, 4):
        acc[i] += upper * part[i]
        acc[i + 1] += upper * part[i + 1]
        acc[i + 2] += upper * part[i + 2]
        acc[i + 3] += upper * part[i + 3]
