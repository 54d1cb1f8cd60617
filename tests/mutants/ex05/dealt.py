"""Tiles are dealt in turn; nothing is drawn."""

from numba import cuda

MISCONCEPTION = "dealt-not-drawn"
CAUGHT_BY = "test_tickets"


@cuda.jit
def work_loop(x, w, ends, tile_ends, counters, y):
    num_tiles = tile_ends[tile_ends.shape[0] - 1]
    for first in range(cuda.blockIdx.x * TICKET, num_tiles, cuda.gridDim.x * TICKET):
        for tile in range(first, min(first + TICKET, num_tiles)):
            compute_tile(x, w, ends, tile_ends, y, tile)
