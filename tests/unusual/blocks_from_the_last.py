"""Blocks of K from the last to the first, steps behind the end of K, and scales multiplied one by one."""

from numba import cuda, float32

EXERCISE = "ex12_promotion"


@cuda.jit
def promoted_kernel(x, x_scales, w, w_scales, tiles, y):
    tile = tiles[cuda.blockIdx.x]
    expert, first_row, end = tile[0], tile[1], tile[2]
    first_col = cuda.blockIdx.y * COLUMNS
    lane = cuda.threadIdx.x
    acc = cuda.local.array(SUMS, float32)
    part = cuda.local.array(SUMS, float32)
    for i in range(SUMS):
        acc[i] = float32(0.0)
    upper_row = min(first_row + lane // 4, end - 1)
    lower_row = min(first_row + lane // 4 + 8, end - 1)
    for block in range(x_scales.shape[0] - 1, -1, -1):
        for step in range(BLOCK // STEP):
            tensor_core(part, x, w[expert], first_row, end, first_col, block * BLOCK + step * STEP, step)
        of_w = w_scales[expert, first_col // BLOCK, block]
        upper, lower = x_scales[block, upper_row], x_scales[block, lower_row]
        for i in range(SUMS):
            if i % 4 < 2:
                acc[i] = cuda.fma(part[i] * of_w, upper, acc[i])
            else:
                acc[i] = acc[i] + part[i] * lower * of_w
    for i in range(SUMS):
        row, column = place(lane, i)
        if first_row + row < end and first_col + column < y.shape[1]:
            y[first_row + row, first_col + column] = acc[i]
