"""The block that comes last is taken to have the last part."""

from numba import cuda, float32

MISCONCEPTION = "last-to-come-is-last-part"
CAUGHT_BY = "test_same_bits"


@cuda.jit(device=True)
def add_up(total, workspace, tile, part, parts):
    y = float32(0.0)
    for each in range(parts - 1):
        y += workspace[tile * parts + each, cuda.threadIdx.x]
    return y + total
