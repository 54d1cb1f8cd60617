"""A block takes the next slot that is free, and slots are added in order."""

from numba import cuda, int32

MISCONCEPTION = "order-of-arrival"
CAUGHT_BY = "test_same_bits"


@cuda.jit(device=True)
def hand_in(total, workspace, counters, tile, part, parts):
    s_last = cuda.shared.array(1, int32)
    if cuda.threadIdx.x == 0:
        s_last[0] = cuda.atomic.add(counters, tile, 1) & 0xFFFF
    cuda.syncthreads()
    workspace[tile * parts + s_last[0], cuda.threadIdx.x] = total
    cuda.threadfence()
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        s_last[0] = cuda.atomic.add(counters, tile, 1 << 16) >> 16 == parts - 1
        cuda.threadfence()
        if s_last[0]:
            cuda.atomic.exch(counters, tile, 0)
    cuda.syncthreads()
    return s_last[0] != 0
