"""Experts without slots leave early, all threads together, and the tokens of a slab are shared."""

from numba import cuda, float32, int32

EXERCISE = "ex15_wgrad"


@cuda.jit
def wgrad_kernel(dy, x, token_of, scale, ends, dw):
    s_token = cuda.shared.array(BK, int32)
    s_pair = cuda.shared.array((2, 2, BK, BM), float32)
    i, j = cuda.threadIdx.y, cuda.threadIdx.x
    N, K = dy.shape[1], x.shape[1]
    tiles_k = (K + BN - 1) // BN
    tiles = (N + BM - 1) // BM * tiles_k
    expert = cuda.blockIdx.x // tiles
    row = cuda.blockIdx.x % tiles // tiles_k * BM
    col = cuda.blockIdx.x % tiles % tiles_k * BN
    inside = row + i < N and col + j < K
    start = 0 if expert == 0 else ends[expert - 1]
    if start == ends[expert]:
        if inside:
            dw[expert * N + row + i, col + j] = float32(0.0)
        return
    acc = float32(0.0)
    for slab in range((ends[expert] - start + BK - 1) // BK):
        first, turn = start + slab * BK, slab % 2
        if i == 0:
            s_token[j] = token_of[first + j] if first + j < ends[expert] else -1
        cuda.syncthreads()
        token = s_token[i]
        a = dy[token, row + j] * scale[first + i] if token >= 0 and row + j < N else float32(0.0)
        b = x[token, col + j] if token >= 0 and col + j < K else float32(0.0)
        s_pair[turn, 0, i, j], s_pair[turn, 1, i, j] = a, b
        cuda.syncthreads()
        for term in range(BK):
            acc += s_pair[turn, 0, term, i] * s_pair[turn, 1, term, j]
    if inside:
        dw[expert * N + row + i, col + j] = acc
