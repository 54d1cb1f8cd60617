"""Exercise 07: a masked kernel with holes, that finds its rows by itself.

What differs from the lesson's kernel: tokens are not copied into slabs. A slab holds token numbers only; the
kernel reads the token's row of x and writes the token's row of y. And a slab may have holes:

    used = [3, 0, 4]      token_of   2  -1   0 | 7   7   5   1      expert 0 uses 3 slots of 4, one is a hole
                          ...                                       what stands beyond used[g] is out of date

    x         [total_tokens, K]          float32, in any order
    w         [num_experts, N, K]        float32
    token_of  [num_experts, capacity]    int32: the token in each slot; -1 for a hole
    used      [num_experts]              int32: slots of each expert in use, holes included. A router on the
                                         device wrote it and nobody has checked it: it may be negative (none),
                                         or larger than the capacity (then all slots are in use)
    y         [total_tokens, N]          float32: y[token] = x[token] @ w[expert].T for every slot in use

Every token sits in one slot in use. The host knows the capacity, and neither `used` nor `token_of`.

Budget: about 16 lines; one launch; two reads of global memory for each multiply-add, one write per output.
"""

from numba import cuda, float32

BLOCK_COLUMNS = 16
BLOCK_SLOTS = 4


@cuda.jit
def masked_kernel(x, w, token_of, used, y):
    """One thread for each column of each slot, in use or not."""
    # >>> fill (about 10 lines): skip what is not in use, and holes
    pass
    # <<< fill


def launch_shape(num_experts, capacity, N):
    """Grid and block of the one launch, recorded in a graph: it must be right for any counts.

    Args:
        num_experts: at least 1.
        capacity: slots of each expert, at least 1.
        N: output features.

    Returns:
        (grid, block), each a number or a tuple of up to three, as in kernel[grid, block].
    """
    # >>> fill (about 3 lines): columns, slots, experts
    return 1, 1
    # <<< fill
