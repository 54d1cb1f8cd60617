"""Parts are counted with += of an ordinary element."""

from numba import cuda, int32

MISCONCEPTION = "count-lost"
CAUGHT_BY = "test_clean"


@cuda.jit(device=True)
def hand_in(total, workspace, counters, tile, part, parts):
    s_last = cuda.shared.array(1, int32)
    workspace[tile * parts + part, cuda.threadIdx.x] = total
    cuda.threadfence()
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        counters[tile] += 1
        s_last[0] = counters[tile] == parts
        cuda.threadfence()
        if s_last[0]:
            cuda.atomic.exch(counters, tile, 0)
    cuda.syncthreads()
    return s_last[0] != 0
