"""The first block sets the counter to zero when it begins."""

from numba import cuda, int32

MISCONCEPTION = "begins-with-reset"
CAUGHT_BY = "test_clean"


@cuda.jit
def work_loop(x, w, ends, tile_ends, counters, y):
    s_ticket = cuda.shared.array(1, int32)
    num_tiles = tile_ends[tile_ends.shape[0] - 1]
    if cuda.blockIdx.x == 0 and cuda.threadIdx.x == 0:
        counters[0] = 0
    while True:
        if cuda.threadIdx.x == 0:
            s_ticket[0] = cuda.atomic.add(counters, 0, 1)
        cuda.syncthreads()
        first = s_ticket[0] * TICKET
        cuda.syncthreads()
        if first >= num_tiles:
            break
        for tile in range(first, min(first + TICKET, num_tiles)):
            compute_tile(x, w, ends, tile_ends, y, tile)
