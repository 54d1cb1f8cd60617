"""One barrier, after the loop over K."""

from numba import cuda, float32

MISCONCEPTION = "barrier-missing-after-load"
CAUGHT_BY = "test_clean"


@cuda.jit
def gate_up_kernel(x, w, ends, tile_ends, y):
    s_x = cuda.shared.array((BM, BK), float32)
    s_gate = cuda.shared.array((BN, BK), float32)
    s_up = cuda.shared.array((BN, BK), float32)
    i, j = cuda.threadIdx.y, cuda.threadIdx.x
    tile, N, K = cuda.blockIdx.x, y.shape[1], x.shape[1]
    tiles_n = (N + BN - 1) // BN
    expert = find_expert(tile_ends, tile)
    first_row = 0
    if expert > 0:
        first_row = ends[expert - 1]
        tile -= tile_ends[expert - 1]
    row = first_row + tile // tiles_n * BM + i
    first_col = tile % tiles_n * BN
    last_row = ends[expert]
    gate, up = float32(0.0), float32(0.0)
    for k_tile in range(0, K, BK):
        k, n = k_tile + j, first_col + i
        s_x[i, j] = x[row, k] if row < last_row and k < K else float32(0.0)
        s_gate[i, j] = w[expert, n, k] if n < N and k < K else float32(0.0)
        s_up[i, j] = w[expert, N + n, k] if n < N and k < K else float32(0.0)
        for step in range(BK):
            gate += s_x[i, step] * s_gate[j, step]
            up += s_x[i, step] * s_up[j, step]
    cuda.syncthreads()
    if row < last_row and first_col + j < N:
        y[row, first_col + j] = max(gate, float32(0.0)) * up
