"""The four steps of a block one below the other, and scales of 1 for rows that are not there."""

from numba import cuda, float32

EXERCISE = "ex12_promotion"


@cuda.jit(device=True)
def scale_of(x_scales, block, row, end):
    if row >= end:
        return float32(1.0)
    return x_scales[block, row]


@cuda.jit
def promoted_kernel(x, x_scales, w, w_scales, tiles, y):
    lane = cuda.laneid
    expert, first_row, end = tiles[cuda.blockIdx.x, 0], tiles[cuda.blockIdx.x, 1], tiles[cuda.blockIdx.x, 2]
    first_col = COLUMNS * cuda.blockIdx.y
    weights = w[expert]
    sums = cuda.local.array((2, SUMS), float32)
    part, acc = sums[0], sums[1]
    for i in range(SUMS):
        acc[i] = 0
    for first in range(0, x.shape[1], BLOCK):
        block = first // BLOCK
        upper = scale_of(x_scales, block, first_row + lane // 4, end)
        lower = scale_of(x_scales, block, first_row + lane // 4 + 8, end)
        both = w_scales[expert, first_col // BLOCK, block]
        tensor_core(part, x, weights, first_row, end, first_col, first, 0)
        tensor_core(part, x, weights, first_row, end, first_col, first + STEP, 1)
        tensor_core(part, x, weights, first_row, end, first_col, first + 2 * STEP, 1)
        tensor_core(part, x, weights, first_row, end, first_col, first + 3 * STEP, 1)
        promote(acc, part, upper * both, lower * both)
    for i in range(SUMS - 1, -1, -1):
        row, column = place(lane, i)
        if first_col + column < y.shape[1] and first_row + row < end:
            y[first_row + row, first_col + column] = acc[i]
