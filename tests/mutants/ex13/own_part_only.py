"""The last block stores its own part."""

from numba import cuda

MISCONCEPTION = "one-part"
CAUGHT_BY = "test_equal"


@cuda.jit(device=True)
def add_up(total, workspace, tile, part, parts):
    return total
