"""A block spins until all have drawn their first ticket; there are more blocks than are resident."""

from numba import cuda, int32

MISCONCEPTION = "not-resident"
CAUGHT_BY = "test_resident"


@cuda.jit
def work_loop(x, w, ends, tile_ends, counters, y):
    s_ticket = cuda.shared.array(1, int32)
    num_tiles = tile_ends[tile_ends.shape[0] - 1]
    if cuda.threadIdx.x == 0:
        cuda.atomic.add(counters, 1, 1)
        while cuda.atomic.add(counters, 1, 0) < cuda.gridDim.x:
            pass
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
    if cuda.threadIdx.x == 0:
        cuda.threadfence()
        if cuda.atomic.add(counters, 1, 1) == 2 * cuda.gridDim.x - 1:
            cuda.threadfence()
            cuda.atomic.exch(counters, 0, 0)
            cuda.atomic.exch(counters, 1, 0)


def launch_shape(num_tiles, num_resident):
    tickets = -(-num_tiles // TICKET)
    return tickets, BM * BN
