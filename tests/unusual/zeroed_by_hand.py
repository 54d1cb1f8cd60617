"""One loop over K; part is set to zero behind each promotion, and the tensor core always adds."""

from numba import cuda, float32

EXERCISE = "ex12_promotion"


@cuda.jit(device=True)
def promote(acc, part, upper, lower):
    for i in range(SUMS):
        acc[i] += part[i] * (lower if i & 2 else upper)
        part[i] = float32(0.0)


@cuda.jit
def promoted_kernel(x, x_scales, w, w_scales, tiles, y):
    expert, first_row, end = tiles[cuda.blockIdx.x, 0], tiles[cuda.blockIdx.x, 1], tiles[cuda.blockIdx.x, 2]
    first_col = cuda.blockIdx.y * COLUMNS
    acc = cuda.local.array(SUMS, float32)
    part = cuda.local.array(SUMS, float32)
    for i in range(SUMS):
        acc[i] = float32(0.0)
        part[i] = float32(0.0)
    row = first_row + cuda.threadIdx.x // 4
    upper = float32(0.0)
    lower = float32(0.0)
    K = x.shape[1]
    for k in range(0, K, STEP):
        if k % BLOCK == 0:
            weight = w_scales[expert, first_col // BLOCK, k // BLOCK]
            if row < end:
                upper = x_scales[k // BLOCK, row] * weight
            if row + 8 < end:
                lower = x_scales[k // BLOCK, row + 8] * weight
        tensor_core(part, x, w[expert], first_row, end, first_col, k, True)
        if k % BLOCK == BLOCK - STEP or k + STEP >= K:
            promote(acc, part, upper, lower)
    for i in range(SUMS):
        r, c = place(cuda.threadIdx.x, i)
        if first_row + r < end and first_col + c < y.shape[1]:
            y[first_row + r, first_col + c] = acc[i]
