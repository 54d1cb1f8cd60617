"""Columns are not tested before the store."""

from numba import cuda, float32

MISCONCEPTION = "gradient-columns-not-tested"
CAUGHT_BY = "test_edges"


@cuda.jit
def wgrad_kernel(dy, x, token_of, scale, ends, dw):
    s_dy = cuda.shared.array((BK, BM), float32)
    s_x = cuda.shared.array((BK, BN), float32)
    i, j = cuda.threadIdx.y, cuda.threadIdx.x
    N, K = dy.shape[1], x.shape[1]
    tiles_k = (K + BN - 1) // BN
    tiles = (N + BM - 1) // BM * tiles_k
    expert, tile = cuda.blockIdx.x // tiles, cuda.blockIdx.x % tiles
    n, k = tile // tiles_k * BM, tile % tiles_k * BN
    start = 0
    if expert > 0:
        start = ends[expert - 1]
    stop = ends[expert]
    acc = float32(0.0)
    for first in range(start, stop, BK):
        slot = first + i
        cuda.syncthreads()
        s_dy[i, j] = float32(0.0)
        s_x[i, j] = float32(0.0)
        if slot < stop and n + j < N:
            s_dy[i, j] = scale[slot] * dy[token_of[slot], n + j]
        if slot < stop and k + j < K:
            s_x[i, j] = x[token_of[slot], k + j]
        cuda.syncthreads()
        for step in range(BK):
            acc += s_dy[step, i] * s_x[step, j]
    if n + i < N:
        dw[expert * N + n + i, k + j] = acc
