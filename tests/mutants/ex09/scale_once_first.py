"""One sum over all of K, scaled once, with the first block's scales."""

from numba import cuda, float32, int32

MISCONCEPTION = "scale-once"
CAUGHT_BY = "test_blocks"


@cuda.jit
def scaled_kernel(codes, scales, w, w_scales, ends, y):
    col, row = cuda.grid(2)
    if row < y.shape[0] and col < y.shape[1]:
        expert = 0
        while ends[expert] <= row:
            expert += 1
        part = int32(0)
        for block in range(scales.shape[1]):
            for k in range(block * BLOCK_K, min(block * BLOCK_K + BLOCK_K, codes.shape[1])):
                part += codes[row, k] * w[expert, col, k]
        y[row, col] = float32(part) * scales[row, 0] * w_scales[expert, col // BLOCK_N, 0]
