"""The parts of all tiles share slots."""

from numba import cuda, float32, int32

MISCONCEPTION = "slots-shared"
CAUGHT_BY = "test_again"


@cuda.jit(device=True)
def hand_in(total, workspace, counters, tile, part, parts):
    s_last = cuda.shared.array(1, int32)
    workspace[part, cuda.threadIdx.x] = total
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
    y = float32(0.0)
    for each in range(parts):
        y += workspace[each, cuda.threadIdx.x]
    return y
