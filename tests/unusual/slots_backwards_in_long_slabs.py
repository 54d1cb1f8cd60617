"""Slabs of 20 slots, from the last slot to the first, loaded by a thread number instead of two indices."""

from numba import cuda, float32, int32

EXERCISE = "ex15_wgrad"

SLAB = 20


@cuda.jit(device=True)
def fill(slab, matrix, token_of, first, stop, column):
    for place in range(cuda.threadIdx.y * BN + cuda.threadIdx.x, SLAB * 8, BM * BN):
        slot, col = first + place // 8, column + place % 8
        inside = slot < stop and col < matrix.shape[1]
        slab[place // 8, place % 8] = matrix[token_of[slot], col] if inside else float32(0.0)


@cuda.jit
def wgrad_kernel(dy, x, token_of, scale, ends, dw):
    s_dy = cuda.shared.array((SLAB, BM), float32)
    s_x = cuda.shared.array((SLAB, BN), float32)
    s_scale = cuda.shared.array(SLAB, float32)
    thread = cuda.threadIdx.y * BN + cuda.threadIdx.x
    N, K = dy.shape[1], x.shape[1]
    across = (K - 1) // BN + 1
    expert = cuda.blockIdx.x // (((N - 1) // BM + 1) * across)
    tile = cuda.blockIdx.x - expert * (((N - 1) // BM + 1) * across)
    n, k = tile // across * BM, tile % across * BN
    start = ends[expert - 1] if expert > 0 else int32(0)
    stop = ends[expert]
    num_slabs = (stop - start + SLAB - 1) // SLAB
    acc = float32(0.0)
    for number in range(num_slabs):
        first = start + (num_slabs - 1 - number) * SLAB
        fill(s_dy, dy, token_of, first, stop, n)
        fill(s_x, x, token_of, first, stop, k)
        if thread < SLAB:
            s_scale[thread] = scale[first + thread] if first + thread < stop else float32(0.0)
        cuda.syncthreads()
        for place in range(SLAB):
            acc += s_scale[place] * s_dy[place, cuda.threadIdx.y] * s_x[place, cuda.threadIdx.x]
        cuda.syncthreads()
    if n + cuda.threadIdx.y < N and k + cuda.threadIdx.x < K:
        dw[expert * N + n + cuda.threadIdx.y, k + cuda.threadIdx.x] = acc
