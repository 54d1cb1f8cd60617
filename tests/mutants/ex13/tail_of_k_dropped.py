"""Parts are K // parts long, and what is left over has no part."""

from numba import cuda

MISCONCEPTION = "tail-of-k"
CAUGHT_BY = "test_uneven"


@cuda.jit(device=True)
def part_range(K, part, parts):
    return part * (K // parts), (part + 1) * (K // parts)
