"""What has been promoted is cut to 14 bits as well."""

from numba import cuda

MISCONCEPTION = "total-cut"
CAUGHT_BY = "test_long"


@cuda.jit(device=True)
def promote(acc, part, upper, lower):
    for i in range(0, SUMS, 4):
        acc[i] += upper * part[i]
        acc[i + 1] += upper * part[i + 1]
        acc[i + 2] += lower * part[i + 2]
        acc[i + 3] += lower * part[i + 3]
    for i in range(SUMS):
        acc[i] = as_float32(as_word(acc[i]) >> DROPPED << DROPPED)
