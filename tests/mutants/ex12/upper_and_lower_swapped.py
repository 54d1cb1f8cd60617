"""The upper row meets the scale of the lower one, and the lower that of the upper."""

from numba import cuda

MISCONCEPTION = "scale-of-other-row"
CAUGHT_BY = "test_one_block"


@cuda.jit(device=True)
def promote(acc, part, upper, lower):
    for i in range(0, SUMS, 4):
        acc[i] += lower * part[i]
        acc[i + 1] += lower * part[i + 1]
        acc[i + 2] += upper * part[i + 2]
        acc[i + 3] += upper * part[i + 3]
