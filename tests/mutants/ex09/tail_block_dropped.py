"""Only whole blocks are multiplied."""

from numba import cuda, float32, int32

MISCONCEPTION = "k-tail-dropped"
CAUGHT_BY = "test_blocks"


@cuda.jit
def scaled_kernel(codes, scales, w, w_scales, ends, y):
    col, row = cuda.grid(2)
    if row < y.shape[0] and col < y.shape[1]:
        expert = 0
        while ends[expert] <= row:
            expert += 1
        acc = float32(0.0)
        for block in range(codes.shape[1] // BLOCK_K):
            part = int32(0)
            for k in range(block * BLOCK_K, min(block * BLOCK_K + BLOCK_K, codes.shape[1])):
                part += codes[row, k] * w[expert, col, k]
            acc += float32(part) * scales[row, block] * w_scales[expert, col // BLOCK_N, block]
        y[row, col] = acc
