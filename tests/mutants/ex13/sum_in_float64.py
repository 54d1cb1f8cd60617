"""The parts are added up in a float64."""

from numba import cuda

MISCONCEPTION = "float64"
CAUGHT_BY = "test_compiles"


@cuda.jit(device=True)
def add_up(total, workspace, tile, part, parts):
    y = 0.0
    for each in range(parts):
        y += workspace[tile * parts + each, cuda.threadIdx.x]
    return y
