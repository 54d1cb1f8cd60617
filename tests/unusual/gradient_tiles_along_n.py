"""Tiles numbered along N first, which no result shows; a walk to the expert; slabs lie transposed."""

from numba import cuda, float32

EXERCISE = "ex15_wgrad"

PITCH = 9


@cuda.jit
def wgrad_kernel(dy, x, token_of, scale, ends, dw):
    s_dy = cuda.shared.array((BM, PITCH), float32)
    s_x = cuda.shared.array((BN, PITCH), float32)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    rows, columns = (dy.shape[1] + BM - 1) // BM, (x.shape[1] + BN - 1) // BN
    expert, tile, slot = 0, cuda.blockIdx.x, 0
    while tile >= rows * columns:
        tile -= rows * columns
        slot = ends[expert]
        expert += 1
    n, k = tile % rows * BM, tile // rows * BN
    total = float32(0.0)
    while slot < ends[expert]:
        left, right = float32(0.0), float32(0.0)
        if slot + tx < ends[expert]:
            token = token_of[slot + tx]
            if n + ty < dy.shape[1]:
                left = dy[token, n + ty]
            if k + ty < x.shape[1]:
                right = x[token, k + ty] * scale[slot + tx]
        s_dy[ty, tx], s_x[ty, tx] = left, right
        cuda.syncthreads()
        for term in range(min(BK, ends[expert] - slot)):
            total += s_dy[ty, term] * s_x[tx, term]
        cuda.syncthreads()
        slot += BK
    if n + ty < dy.shape[1] and k + tx < x.shape[1]:
        dw[expert * dy.shape[1] + n + ty, k + tx] = total
