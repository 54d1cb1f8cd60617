"""Exercise 02: one launch per expert, for a whole layer with bias and ReLU.

What differs from the lesson's kernel: the weights lie as [K, N], a bias is added, ReLU is applied, and
the launcher gets counts, not offsets.

    y[rows of g] = max(x[rows of g] @ w[g] + bias[g], 0)

    x     [total_tokens, K]   float32, tokens sorted by expert
    w     [num_experts, K, N] float32: w[g, k, n], not w[g, n, k]
    bias  [num_experts, N]    float32
    y     [total_tokens, N]   float32

Budget: about 15 lines; one launch for each expert that has tokens, none for the others; two reads of
global memory per multiply-add, and one write per output.
"""

from numba import cuda, float32

BLOCK_ROWS = 4
BLOCK_COLUMNS = 16


@cuda.jit
def expert_kernel(x, w, bias, y):
    """One expert: x [count, K], w [K, N], bias [N], y [count, N]."""
    # >>> fill (about 7 lines): one thread computes one output
    pass
    # <<< fill


def launch_experts(launch, counts, x, w, bias, y):
    """Launch `expert_kernel` once for each expert that has tokens.

    Args:
        launch: launch(kernel, grid, block, *arguments) starts a kernel and counts it.
        counts: tokens of each expert, a list of ints.
        x: device array; slice it as x[first:last].
        w: device array; w[g] is expert g's [K, N].
        bias: device array; bias[g] is expert g's [N].
        y: device array, sliced as x.
    """
    # >>> fill (about 8 lines): walk over the experts, keep track of where their rows begin
    pass
    # <<< fill
