"""Only the thread that counted learns that its block is the last."""

from numba import cuda

MISCONCEPTION = "one-thread-knows"
CAUGHT_BY = "test_whole"


@cuda.jit(device=True)
def hand_in(total, workspace, counters, tile, part, parts):
    last = False
    workspace[tile * parts + part, cuda.threadIdx.x] = total
    cuda.threadfence()
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        last = cuda.atomic.add(counters, tile, 1) == parts - 1
        cuda.threadfence()
        if last:
            cuda.atomic.exch(counters, tile, 0)
    return last
