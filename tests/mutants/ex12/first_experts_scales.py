"""The scales of w are those of expert 0."""

from numba import cuda, float32

MISCONCEPTION = "wrong-experts-weights"
CAUGHT_BY = "test_experts"


@cuda.jit
def promoted_kernel(x, x_scales, w, w_scales, tiles, y):
    lane, tile = cuda.threadIdx.x, cuda.blockIdx.x
    expert, first_row, end = tiles[tile, 0], tiles[tile, 1], tiles[tile, 2]
    first_col = cuda.blockIdx.y * COLUMNS
    row = first_row + lane // 4
    acc = cuda.local.array(SUMS, float32)
    part = cuda.local.array(SUMS, float32)
    for i in range(SUMS):
        acc[i] = float32(0.0)
    for block in range(w_scales.shape[2]):
        first = block * BLOCK
        for k in range(first, min(first + BLOCK, x.shape[1]), STEP):
            tensor_core(part, x, w[expert], first_row, end, first_col, k, k > first)
        weight = w_scales[0, first_col // BLOCK, block]
        upper, lower = float32(0.0), float32(0.0)
        if row < end:
            upper = weight * x_scales[block, row]
        if row + 8 < end:
            lower = weight * x_scales[block, row + 8]
        promote(acc, part, upper, lower)
    for i in range(SUMS):
        row, column = place(lane, i)
        row += first_row
        column += first_col
        if row < end and column < y.shape[1]:
            y[row, column] = acc[i]
