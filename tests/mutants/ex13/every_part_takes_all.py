"""Every part is all of K."""

from numba import cuda

MISCONCEPTION = "whole-k"
CAUGHT_BY = "test_equal"


@cuda.jit(device=True)
def part_range(K, part, parts):
    return 0, K
