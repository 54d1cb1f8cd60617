"""The sum begins with part 1."""

from numba import cuda, float32

MISCONCEPTION = "part-missing"
CAUGHT_BY = "test_whole"


@cuda.jit(device=True)
def add_up(total, workspace, tile, part, parts):
    y = float32(0.0)
    for each in range(1, parts):
        y += workspace[tile * parts + each, cuda.threadIdx.x]
    return y
