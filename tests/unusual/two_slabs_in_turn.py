"""Slabs in turn, so that one barrier in each round is enough; gate and up in one array."""

from numba import cuda, float32

EXERCISE = "ex04_tiles"
BOTH, WIDE = 2 * BN, BK + 1


@cuda.jit
def gate_up_kernel(x, w, ends, tile_ends, y):
    s_x = cuda.shared.array((2, BK, BM), float32)
    s_w = cuda.shared.array((2, BOTH, WIDE), float32)
    r_sum = cuda.local.array(2, float32)
    thread = cuda.threadIdx.y * BN + cuda.threadIdx.x
    i, j = thread // BK, thread % BK
    expert = find_expert(tile_ends, cuda.blockIdx.x)
    tile, start = cuda.blockIdx.x, 0
    if expert > 0:
        tile, start = tile - tile_ends[expert - 1], ends[expert - 1]
    N, K, stop = y.shape[1], x.shape[1], ends[expert]
    row0, col0 = start + tile // ((N + BN - 1) // BN) * BM, tile % ((N + BN - 1) // BN) * BN
    r_sum[0], r_sum[1] = float32(0.0), float32(0.0)
    for round_ in range((K + BK - 1) // BK):
        slab, k = round_ % 2, round_ * BK + j
        s_x[slab, j, i] = float32(0.0)
        if row0 + i < stop and k < K:
            s_x[slab, j, i] = x[row0 + i, k]
        for half in range(2):
            s_w[slab, half * BN + i, j] = float32(0.0)
            if col0 + i < N and k < K:
                s_w[slab, half * BN + i, j] = w[expert, half * N + col0 + i, k]
        cuda.syncthreads()
        for step in range(BK):
            for half in range(2):
                r_sum[half] += s_x[slab, step, i] * s_w[slab, half * BN + j, step]
    if row0 + i < stop and col0 + j < N:
        y[row0 + i, col0 + j] = (r_sum[0] if r_sum[0] > float32(0.0) else float32(0.0)) * r_sum[1]
