"""One mma for each step, whose result is thrown away."""

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
    zero, nothing = float32(0.0), uint32(0)
    for _ in range(0, x.shape[1], MMA_K):
        mma(nothing, nothing, nothing, nothing, nothing, nothing, zero, zero, zero, zero)
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
