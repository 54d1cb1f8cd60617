"""Exercise 05: a work loop in which a ticket stands for three tiles.

What differs from the lesson's kernel: a ticket is not a tile but TICKET neighbouring tiles, so that blocks
draw less often; the last ticket may stand for fewer. Which tile is where, and how a tile is computed, is
given: you write who computes it.

    ticket   0        1        2      TICKET = 3, 8 tiles: ticket 2 stands for two tiles
    tile     0 1 2    3 4 5    6 7

    counters  [2] int32: zero when a launch begins, and zero again when it ends, since the grader launches
                         again without touching them. counters[0] is for tickets; use counters[1] as you like.
    ends, tile_ends      as in exercise 04: where each expert's rows, and its tiles, end

Every tile is computed once. `compute_tile` has no barrier of its own; all threads of a block must call it.

Budget: about 17 lines; one launch; no more blocks than are resident, and no more than there are tickets; one
atomic for each ticket that is drawn, and each block draws one that is too high.
"""

from numba import cuda, float32, int32

BM, BN = 8, 8
TICKET = 3


@cuda.jit(device=True)
def compute_tile(x, w, ends, tile_ends, y, tile):
    """Compute one tile with BM * BN threads, one output each; given."""
    tiles_n = (y.shape[1] + BN - 1) // BN
    expert = 0
    while tile_ends[expert] <= tile:
        expert += 1
    first_row, within = 0, tile
    if expert > 0:
        first_row = ends[expert - 1]
        within -= tile_ends[expert - 1]
    row = first_row + within // tiles_n * BM + cuda.threadIdx.x // BN
    col = within % tiles_n * BN + cuda.threadIdx.x % BN
    if row < ends[expert] and col < y.shape[1]:
        acc = float32(0.0)
        for k in range(x.shape[1]):
            acc += x[row, k] * w[expert, col, k]
        y[row, col] = acc


@cuda.jit
def work_loop(x, w, ends, tile_ends, counters, y):
    """Blocks draw tickets until none is left, and leave the counters at zero."""
    # >>> fill (about 17 lines): draw, share the ticket, stop together, compute its tiles; reset at the end
    pass
    # <<< fill


def launch_shape(num_tiles, num_resident):
    """Grid and block of the one launch.

    Args:
        num_tiles: of all experts, at least 1.
        num_resident: how many blocks the device runs at the same time.

    Returns:
        (grid, block), each a number.
    """
    # >>> fill (about 2 lines): as many blocks as can have something to do at the same time
    return 1, 1
    # <<< fill
