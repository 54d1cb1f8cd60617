"""The last block is taken to find all parts counted before it."""

from numba import cuda, int32

MISCONCEPTION = "last-off-by-one"
CAUGHT_BY = "test_whole"


@cuda.jit(device=True)
def hand_in(total, workspace, counters, tile, part, parts):
    s_last = cuda.shared.array(1, int32)
    workspace[tile * parts + part, cuda.threadIdx.x] = total
    cuda.threadfence()
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        s_last[0] = cuda.atomic.add(counters, tile, 1) == parts
        cuda.threadfence()
        if s_last[0]:
            cuda.atomic.exch(counters, tile, 0)
    cuda.syncthreads()
    return s_last[0] != 0
