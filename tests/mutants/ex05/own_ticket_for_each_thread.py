"""Every thread keeps a ticket of its own."""

from numba import cuda

MISCONCEPTION = "all-threads-draw"
CAUGHT_BY = "test_first"


@cuda.jit
def work_loop(x, w, ends, tile_ends, counters, y):
    num_tiles = tile_ends[tile_ends.shape[0] - 1]
    while True:
        first = cuda.atomic.add(counters, 0, 1) * TICKET
        if first >= num_tiles:
            break
        for tile in range(first, min(first + TICKET, num_tiles)):
            compute_tile(x, w, ends, tile_ends, y, tile)
    if cuda.threadIdx.x == 0:
        cuda.threadfence()
        if cuda.atomic.add(counters, 1, 1) == cuda.gridDim.x - 1:
            cuda.threadfence()
            cuda.atomic.exch(counters, 0, 0)
            cuda.atomic.exch(counters, 1, 0)
