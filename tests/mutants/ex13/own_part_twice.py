"""The sum begins with the own part, and all parts are added to it."""

from numba import cuda

MISCONCEPTION = "part-twice"
CAUGHT_BY = "test_whole"


@cuda.jit(device=True)
def add_up(total, workspace, tile, part, parts):
    y = total
    for each in range(parts):
        y += workspace[tile * parts + each, cuda.threadIdx.x]
    return y
