"""The last k of each part is left out."""

from numba import cuda

MISCONCEPTION = "border-lost"
CAUGHT_BY = "test_whole"


@cuda.jit(device=True)
def part_range(K, part, parts):
    return K * part // parts, K * (part + 1) // parts - 1
