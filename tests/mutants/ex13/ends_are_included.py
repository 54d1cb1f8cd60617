"""The end of a part belongs to it, and to the next one, too."""

from numba import cuda

MISCONCEPTION = "border-twice"
CAUGHT_BY = "test_equal"


@cuda.jit(device=True)
def part_range(K, part, parts):
    return K * part // parts, min(K, K * (part + 1) // parts + 1)
