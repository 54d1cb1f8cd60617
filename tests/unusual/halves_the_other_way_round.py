"""Both halves of every word exchanged, in x and in w; K from its end; a warp without columns leaves."""

from numba import cuda, float32, uint32

EXERCISE = "ex10_tensor_cores"


@cuda.jit(device=True)
def pair_at(matrix, row, k, end):
    word = uint32(0)
    for half in range(2):
        inside = row < end and k + half < matrix.shape[1]
        word |= (uint32(matrix[row, k + half]) if inside else uint32(0)) << (16 - 16 * half)
    return word


@cuda.jit
def tensor_core_kernel(x, w, tiles, y):
    lane = cuda.laneid
    first_col = (cuda.blockIdx.y * WARPS + cuda.threadIdx.x // WARP) * MMA_N
    if first_col >= y.shape[1]:  # the whole warp
        return
    tile = cuda.blockIdx.x
    expert, first_row, end = tiles[tile, 0], tiles[tile, 1], tiles[tile, 2]
    c0, c1, c2, c3 = float32(0.0), float32(0.0), float32(0.0), float32(0.0)
    a = cuda.local.array(4, uint32)
    k_tile = (x.shape[1] - 1) // MMA_K * MMA_K
    while k_tile >= 0:
        for word in range(4):
            row, k = a_place(lane, word)
            a[word] = pair_at(x, first_row + row, k_tile + k, end)
        n, k = b_place(lane, 0)
        b0 = pair_at(w[expert], first_col + n, k_tile + k, w.shape[1])
        b1 = pair_at(w[expert], first_col + n, k_tile + k + MMA_K // 2, w.shape[1])
        c0, c1, c2, c3 = mma(a[0], a[1], a[2], a[3], b0, b1, c0, c1, c2, c3)
        k_tile -= MMA_K
    for word, value in enumerate((c0, c1, c2, c3)):
        row, n = c_place(lane, word)
        if first_row + row < end and first_col + n < y.shape[1]:
            y[first_row + row, first_col + n] = to_bfloat16(value)
