"""Exercise 13: few tokens, a long K: cut K into parts, and add them up in a fixed order.

What differs from the lesson's kernel: every tile is cut into the same number of parts, each block takes one
of them, and a thread has one output, in float32. Which tile is where, and how a part is multiplied, is given:
you write how K is cut and how the parts become one sum.

    num_parts = 3     block     0       1       2       3       4       5
                      tile      0       0       0       1       1       1
                      part      0       1       2       0       1       2
                      of K    |---0---|---1---|---2---| and again for tile 1

    workspace  [num_slots, BM * BN] float32: for partial sums, a slot for each block, with anything in it.
               Slot tile * num_parts + part belongs to that part, and column t to thread t.
    counters   [num_tiles] int32: how many parts of each tile are there. Zero when the first launch begins;
               the grader launches again without touching them.
    ends, tile_ends      as in exercise 04: where each expert's rows, and its tiles, end

Each block leaves its sums in the workspace. The last one of a tile to come, whichever it is, adds up the
parts of the tile, always in the same order: so y has the same bits every time. No block waits for another,
for they need not all run at the same time.

Budget: about 18 lines; one launch; every output is written once, and every weight is read by one part alone.
"""

from numba import cuda, float32, int32

BM, BN = 4, 8  # tokens and features of a tile
LEAST_K = 8


def num_parts(num_tiles, K, wanted_blocks):
    """Into how many parts of K each tile is cut.

    Args:
        num_tiles: of all experts, at least 1.
        K: at least 1.
        wanted_blocks: how many blocks keep the device busy.

    Returns:
        As many as give no more than wanted_blocks blocks in all, and no part shorter than LEAST_K; at
        least one part.
    """
    # >>> fill (about 1 line)
    return max(1, min(wanted_blocks // num_tiles, K // LEAST_K))
    # --- stub
    return 1
    # <<< fill


def launch_shape(num_tiles, K, wanted_blocks):
    """Grid and block of the one launch; given."""
    return num_tiles * num_parts(num_tiles, K, wanted_blocks), BM * BN


@cuda.jit(device=True)
def part_range(K, part, parts):
    """The k that a part begins with, and the one that it ends before.

    Every k is in one part, and all parts are about K / parts long.
    """
    # >>> fill (about 1 line)
    return K * part // parts, K * (part + 1) // parts
    # --- stub
    return 0, 0
    # <<< fill


@cuda.jit(device=True)
def hand_in(total, workspace, counters, tile, part, parts):
    """Leave this thread's sum in the workspace, and say whether all parts of the tile are there.

    All threads of a block call it, and all get the same answer: True in the last block of the tile to come,
    whose part it may be, False in all others. The counter is ready for the next launch.
    """
    # >>> fill (about 11 lines): one thread counts for the whole block, and not before all sums can be seen
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
    return s_last[0] != 0
    # --- stub
    return False
    # <<< fill


@cuda.jit(device=True)
def add_up(total, workspace, tile, part, parts):
    """The sum of all parts of this thread's output, the same bits whichever part came last.

    Args:
        total: what this thread has handed in.
        workspace: partial sums.
        tile: its number.
        part: of this block, the last one to come.
        parts: of each tile.
    """
    # >>> fill (about 4 lines)
    y = float32(0.0)
    for each in range(parts):
        y += workspace[tile * parts + each, cuda.threadIdx.x]
    return y
    # --- stub
    return total
    # <<< fill


@cuda.jit(device=True)
def place(ends, tile_ends, tiles_n, tile):
    """The expert of a tile, the row and the column of this thread, and whether the row exists; given."""
    expert = 0
    while tile_ends[expert] <= tile:
        expert += 1
    first_row, within = 0, tile
    if expert > 0:
        first_row = ends[expert - 1]
        within -= tile_ends[expert - 1]
    row = first_row + within // tiles_n * BM + cuda.threadIdx.x // BN
    return expert, row, within % tiles_n * BN + cuda.threadIdx.x % BN, row < ends[expert]


@cuda.jit
def split_kernel(x, w, ends, tile_ends, workspace, counters, y):
    """One part of one tile; given."""
    parts = cuda.gridDim.x // tile_ends[tile_ends.shape[0] - 1]
    tile, part = cuda.blockIdx.x // parts, cuda.blockIdx.x % parts
    tiles_n = (y.shape[1] + BN - 1) // BN
    expert, row, col, inside = place(ends, tile_ends, tiles_n, tile)
    inside = inside and col < y.shape[1]
    first, last = part_range(x.shape[1], part, parts)
    total = float32(0.0)
    if inside:
        for k in range(first, last):
            total += x[row, k] * w[expert, col, k]
    if hand_in(total, workspace, counters, tile, part, parts):
        total = add_up(total, workspace, tile, part, parts)
        if inside:
            y[row, col] = total
