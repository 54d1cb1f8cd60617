"""The lesson's arguments: tokens are sorted, nothing is weighed, offsets begin at 0."""

from numba import cuda, float32

MISCONCEPTION = "lesson-copied"
CAUGHT_BY = "test_one_tile"


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
    start = ends[expert]
    stop = ends[min(expert + 1, ends.shape[0] - 1)]
    acc = float32(0.0)
    for first in range(start, stop, BK):
        slot = first + i
        cuda.syncthreads()
        s_dy[i, j] = float32(0.0)
        s_x[i, j] = float32(0.0)
        if slot < stop and n + j < N:
            s_dy[i, j] = dy[slot, n + j]
        if slot < stop and k + j < K:
            s_x[i, j] = x[slot, k + j]
        cuda.syncthreads()
        for step in range(BK):
            acc += s_dy[step, i] * s_x[step, j]
    if n + i < N and k + j < K:
        dw[expert * N + n + i, k + j] = acc
