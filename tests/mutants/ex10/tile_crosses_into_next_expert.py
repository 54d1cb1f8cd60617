"""The end of x stands for the end of the expert."""

from numba import cuda, float32, uint32

MISCONCEPTION = "tile-crosses-expert"
CAUGHT_BY = "test_clean"


@cuda.jit
def tensor_core_kernel(x, w, tiles, y):
    lane, warp = cuda.threadIdx.x % WARP, cuda.threadIdx.x // WARP
    tile = cuda.blockIdx.x
    expert, first_row, end = tiles[tile, 0], tiles[tile, 1], x.shape[0]
    first_col = (cuda.blockIdx.y * WARPS + warp) * MMA_N
    N, K = w.shape[1], x.shape[1]
    r_a = cuda.local.array(4, uint32)
    r_b = cuda.local.array(2, uint32)
    r_c = cuda.local.array(4, float32)
    for word in range(4):
        r_c[word] = float32(0.0)
    for k_tile in range(0, K, MMA_K):
        for word in range(4):
            row, k = a_place(lane, word)
            r_a[word] = pair_at(x, first_row + row, k_tile + k, end)
        for word in range(2):
            col, k = b_place(lane, word)
            r_b[word] = pair_at(w[expert], first_col + col, k_tile + k, N)
        r_c[0], r_c[1], r_c[2], r_c[3] = mma(
            r_a[0], r_a[1], r_a[2], r_a[3], r_b[0], r_b[1], r_c[0], r_c[1], r_c[2], r_c[3]
        )
    for word in range(4):
        row, col = c_place(lane, word)
        row += first_row
        col += first_col
        if row < end and col < N:
            y[row, col] = to_bfloat16(r_c[word])
