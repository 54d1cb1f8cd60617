"""Every lane adds up its four outputs with ordinary multiplications."""

from numba import cuda, float32, uint32

from gemm_lessons.ptx.matrix import unpack

MISCONCEPTION = "no-tensor-cores"
CAUGHT_BY = "test_counts"


unpack_pair = unpack["bfloat16"]


@cuda.jit
def tensor_core_kernel(x, w, tiles, y):
    lane, warp = cuda.threadIdx.x % WARP, cuda.threadIdx.x // WARP
    tile = cuda.blockIdx.x
    expert, first_row, end = tiles[tile, 0], tiles[tile, 1], tiles[tile, 2]
    for word in range(4):
        row, col = c_place(lane, word)
        row += first_row
        col += (cuda.blockIdx.y * WARPS + warp) * MMA_N
        if row < end and col < y.shape[1]:
            acc = float32(0.0)
            for k in range(x.shape[1]):
                x_low, _ = unpack_pair(uint32(x[row, k]))
                w_low, _ = unpack_pair(uint32(w[expert, col, k]))
                acc += x_low * w_low
            y[row, col] = to_bfloat16(acc)
