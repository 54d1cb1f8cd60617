"""Both scales are read again for every term."""

from numba import cuda, float32

MISCONCEPTION = "scales-in-the-inner-loop"
CAUGHT_BY = "test_traffic"


@cuda.jit
def scaled_kernel(codes, scales, w, w_scales, ends, y):
    col, row = cuda.grid(2)
    if row < y.shape[0] and col < y.shape[1]:
        expert = 0
        while ends[expert] <= row:
            expert += 1
        acc = float32(0.0)
        for block in range(scales.shape[1]):
            for k in range(block * BLOCK_K, min(block * BLOCK_K + BLOCK_K, codes.shape[1])):
                part = float32(codes[row, k] * w[expert, col, k])
                acc += part * scales[row, block] * w_scales[expert, col // BLOCK_N, block]
        y[row, col] = acc
