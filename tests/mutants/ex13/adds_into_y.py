"""Every block adds its part to y with +=, and part 0 sets it."""

from numba import cuda, float32

MISCONCEPTION = "lost-update"
CAUGHT_BY = "test_clean"


@cuda.jit
def split_kernel(x, w, ends, tile_ends, workspace, counters, y):
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
    if inside:
        if part == 0:
            y[row, col] = total
        else:
            y[row, col] += total
