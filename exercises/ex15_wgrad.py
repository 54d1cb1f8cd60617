"""Exercise 15: the gradient of the weights, with the gather inside.

What differs from the lesson's kernel: tokens are not sorted by expert, and nobody has copied them. x and dy
stay in the order of the tokens; a list of slots, which is sorted by expert, says which token sits where, and
what the router weighs it with. A token may sit in slots of several experts, or in none:

    dw of expert g  =  sum over its slots s of  scale[s] * np.outer(dy[token_of[s]], x[token_of[s]])

    x         [num_tokens, K]        float32, in any order
    dy        [num_tokens, N]        float32, in the same order
    token_of  [num_slots]            int32: the token in each slot
    scale     [num_slots]            float32: what the slot counts for
    ends      [num_experts]          int32: expert g owns the slots from ends[g - 1] (or 0) up to ends[g]
    dw        [num_experts * N, K]   float32: expert g's gradient is rows g * N to (g + 1) * N - 1

A tile is BM x BN elements of one expert's gradient. All experts have equally many, also those without slots;
they are numbered expert by expert, and along K first inside one. Nobody has set dw to zero before.

Budget: about 30 lines; the grader launches one block of BN x BM threads for each tile. A slot's row of dy is
read from global memory once for each column tile, its row of x once for each row tile.
"""

from numba import cuda, float32

BM, BN, BK = 8, 8, 8


@cuda.jit
def wgrad_kernel(dy, x, token_of, scale, ends, dw):
    """Block b computes tile b; thread (x, y) of a block has column x and row y of the tile."""
    # >>> fill (about 27 lines): find the tile, walk along the expert's slots in slabs of BK, store the sum
    pass
    # <<< fill
