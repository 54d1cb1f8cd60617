"""The block with the last part adds up, whenever it comes."""

from numba import cuda, int32

MISCONCEPTION = "not-the-last"
CAUGHT_BY = "test_same_bits"


@cuda.jit(device=True)
def hand_in(total, workspace, counters, tile, part, parts):
    s_last = cuda.shared.array(1, int32)
    workspace[tile * parts + part, cuda.threadIdx.x] = total
    cuda.threadfence()
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        s_last[0] = cuda.atomic.add(counters, tile, 1) == parts - 1
        cuda.threadfence()
        if s_last[0]:
            cuda.atomic.exch(counters, tile, 0)
    cuda.syncthreads()
    return part == parts - 1
