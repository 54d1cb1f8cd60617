"""Parts are added atomically to a slot that nobody has set to zero."""

from numba import cuda, int32

MISCONCEPTION = "workspace-not-zeroed"
CAUGHT_BY = "test_whole"


@cuda.jit(device=True)
def hand_in(total, workspace, counters, tile, part, parts):
    s_last = cuda.shared.array(1, int32)
    cuda.atomic.add(workspace, (tile, cuda.threadIdx.x), total)
    cuda.threadfence()
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        s_last[0] = cuda.atomic.add(counters, tile, 1) == parts - 1
        cuda.threadfence()
        if s_last[0]:
            cuda.atomic.exch(counters, tile, 0)
    cuda.syncthreads()
    return s_last[0] != 0


@cuda.jit(device=True)
def add_up(total, workspace, tile, part, parts):
    return workspace[tile, cuda.threadIdx.x]
