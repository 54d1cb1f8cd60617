"""Each block draws exactly one ticket that is too high, so the highest of these knows that it is the last."""

from numba import cuda, int32

EXERCISE = "ex05_persistent"


@cuda.jit
def work_loop(x, w, ends, tile_ends, counters, y):
    s_ticket = cuda.shared.array(2, int32)
    num_tiles = tile_ends[tile_ends.shape[0] - 1]
    num_tickets = (num_tiles + TICKET - 1) // TICKET
    slot = 0
    ticket = 0
    while ticket < num_tickets:
        if cuda.threadIdx.x == 63:
            s_ticket[slot] = cuda.atomic.add(counters, 0, 1)
        cuda.syncthreads()
        ticket = s_ticket[slot]
        slot = 1 - slot  # two slots in turn: one barrier is enough
        for tile in range(ticket * TICKET, min((ticket + 1) * TICKET, num_tiles)):
            compute_tile(x, w, ends, tile_ends, y, tile)
    if cuda.threadIdx.x == 0 and ticket == num_tickets + cuda.gridDim.x - 1:
        cuda.atomic.exch(counters, 0, 0)
