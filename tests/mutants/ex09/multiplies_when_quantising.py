"""x is multiplied by the scale, not divided."""

from numba import cuda, float32

MISCONCEPTION = "inverse-scale"
CAUGHT_BY = "test_codes"


@cuda.jit
def quantize_kernel(x, codes, scales):
    block, row = cuda.grid(2)
    if row < x.shape[0] and block < scales.shape[1]:
        first, last = block * BLOCK_K, min(block * BLOCK_K + BLOCK_K, x.shape[1])
        amax = float32(0.0)
        for k in range(first, last):
            amax = max(amax, abs(x[row, k]))
        scale = min(amax, float32(CLIP)) / float32(127.0)
        if amax == float32(0.0):
            scale = float32(1.0)
        scales[row, block] = scale
        for k in range(first, last):
            codes[row, k] = round(min(max(x[row, k] * scale, float32(-127.0)), float32(127.0)))
