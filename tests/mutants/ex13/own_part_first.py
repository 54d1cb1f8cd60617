"""The last block begins with its own part, which it has in a register."""

from numba import cuda

MISCONCEPTION = "order-of-arrival"
CAUGHT_BY = "test_same_bits"


@cuda.jit(device=True)
def add_up(total, workspace, tile, part, parts):
    y = total
    for each in range(parts):
        if each != part:
            y += workspace[tile * parts + each, cuda.threadIdx.x]
    return y
