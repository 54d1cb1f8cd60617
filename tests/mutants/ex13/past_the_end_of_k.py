"""Parts are rounded up, and the last one goes past K."""

from numba import cuda

MISCONCEPTION = "past-k"
CAUGHT_BY = "test_clean"


@cuda.jit(device=True)
def part_range(K, part, parts):
    length = (K + parts - 1) // parts
    return part * length, (part + 1) * length
