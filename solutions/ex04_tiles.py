"""Exercise 04: a tiled kernel for gate and up at once.

What differs from the lesson's kernel: each expert has two matrices, gate and up, one above the other in a
single array, and both products share a slab of x:

    gate = x[rows of g] @ w[g, :N].T
    up   = x[rows of g] @ w[g, N:].T
    y[rows of g] = max(gate, 0) * up

    x          [total_tokens, K]      float32, tokens sorted by expert
    w          [num_experts, 2 N, K]  float32: rows 0 to N - 1 are gate, rows N to 2 N - 1 are up
    ends       [num_experts]          int32: expert g owns the rows from ends[g - 1] (or 0) up to ends[g]
    tile_ends  [num_experts]          int32: and the tiles from tile_ends[g - 1] (or 0) up to tile_ends[g]
    y          [total_tokens, N]      float32

A tile is BM x BN outputs of one expert; inside an expert, tiles are numbered along N first.

Budget: about 30 lines; the grader launches one block of BN x BM threads for each tile. Every element of x is
read from global memory once for each column tile, every element of w once for each row tile.
"""

from numba import cuda, float32

BM, BN, BK = 8, 8, 8


@cuda.jit(device=True)
def find_expert(tile_ends, tile):
    """The expert that owns a tile; given."""
    expert = 0
    while tile_ends[expert] <= tile:
        expert += 1
    return expert


@cuda.jit
def gate_up_kernel(x, w, ends, tile_ends, y):
    """Block b computes tile b; thread (x, y) of a block has column x and row y of the tile."""
    # >>> fill (about 27 lines): find the tile, walk along K in slabs of BK, store max(gate, 0) * up
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
        cuda.syncthreads()
        s_x[i, j] = x[row, k] if row < last_row and k < K else float32(0.0)
        s_gate[i, j] = w[expert, n, k] if n < N and k < K else float32(0.0)
        s_up[i, j] = w[expert, N + n, k] if n < N and k < K else float32(0.0)
        cuda.syncthreads()
        for step in range(BK):
            gate += s_x[i, step] * s_gate[j, step]
            up += s_x[i, step] * s_up[j, step]
    if row < last_row and first_col + j < N:
        y[row, first_col + j] = max(gate, float32(0.0)) * up
    # --- stub
    pass
    # <<< fill
