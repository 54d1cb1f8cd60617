"""The next ticket is drawn before this one's tiles are computed."""

from numba import cuda, int32

EXERCISE = "ex05_persistent"


@cuda.jit
def work_loop(x, w, ends, tile_ends, counters, y):
    s_ticket = cuda.shared.array(1, int32)
    num_tiles = tile_ends[tile_ends.shape[0] - 1]
    leader = cuda.threadIdx.x == 0
    if leader:
        s_ticket[0] = cuda.atomic.add(counters, 0, 1)
    cuda.syncthreads()
    first = s_ticket[0] * TICKET
    while first < num_tiles:
        cuda.syncthreads()
        if leader:
            s_ticket[0] = cuda.atomic.add(counters, 0, 1)
        for tile in range(first, min(first + TICKET, num_tiles)):
            compute_tile(x, w, ends, tile_ends, y, tile)
        cuda.syncthreads()
        first = s_ticket[0] * TICKET
    if leader:
        cuda.threadfence()
        if cuda.atomic.add(counters, 1, 1) == cuda.gridDim.x - 1:
            cuda.atomic.exch(counters, 1, 0)
            cuda.atomic.exch(counters, 0, 0)
