"""Exercise 08: from scores to outputs, with a bias, a capacity, and first choices before second ones.

What differs from the lesson: every token has two choices, and ALL first choices are served before ANY second
one. An expert has `capacity` rows; who comes too late gets none. What is left of a token's weights is
divided by its own sum, and a token that got no row at all passes by: its output is its input.

    scores   [T, E]    float32, above 0: how well each expert suits each token; at least two experts
    bias     [E]       float32: decides who is chosen, and nothing else
    experts  [T, 2]    int32: a token's first and second choice, the largest scores + bias; among equals, the
                       expert with the lower number comes first
    weights  [T, 2]    float32: the scores of the two, without bias
    counts   [E]       int32, zero at first: how many slots want each expert
    offsets  [E + 1]   int32: where each expert's rows begin, and the end; none has more than `capacity`
    row_of   [T, 2]    int32: the row of each slot; -1 if it got none
    rows     [2 T, N]  float32: each expert's tokens, one after the other; of equal choices, the lower token
    x, y     [T, N]    float32: y[t] = sum of weight * row over t's slots with a row / sum of these weights

In `counts = [...], N, K` of messages, K is the capacity. `layer` shows who is launched how; do not change it.

Budget: about 40 lines in six kernels; y is written once, a row at most once; no atomics on floats, and the
same result in every run.
"""

from numba import cuda, float32, int32

THREADS = 32


@cuda.jit
def choose_kernel(scores, bias, experts, weights):
    """One thread for each token."""
    # >>> fill (about 12 lines): its two choices, by scores + bias, and their weights
    pass
    # <<< fill


@cuda.jit
def count_kernel(experts, counts):
    """One thread for each slot, and a few too many."""
    # >>> fill (about 4 lines): a histogram
    pass
    # <<< fill


@cuda.jit
def scan_kernel(counts, capacity, offsets):
    """One block, one thread for each expert."""
    # >>> fill (about 7 lines): an exclusive prefix sum of what each expert takes
    pass
    # <<< fill


@cuda.jit
def place_kernel(experts, offsets, row_of):
    """One block, one thread for each expert."""
    # >>> fill (about 9 lines): its slots in their order, as long as it has rows
    pass
    # <<< fill


@cuda.jit
def gather_kernel(x, row_of, rows):
    """One thread for each element of x, along x the column, along y the token; some threads too many."""
    # >>> fill (about 6 lines): to every row that the token has
    pass
    # <<< fill


@cuda.jit
def expert_kernel(offsets, rows):
    """What expert e makes of its rows: e + 1 times the row, plus the row's place; given."""
    col, row = cuda.grid(2)
    if row < offsets[offsets.shape[0] - 1] and col < rows.shape[1]:
        expert = 0
        while offsets[expert + 1] <= row:
            expert += 1
        rows[row, col] = float32(expert + 1) * rows[row, col] + float32(row - offsets[expert])


@cuda.jit
def scatter_kernel(rows, row_of, weights, x, y):
    """One thread for each element of y, as in gather_kernel."""
    # >>> fill (about 12 lines): the weighted mean of the token's rows, or the token itself
    pass
    # <<< fill


def layer(launch, capacity, scores, bias, x, experts, weights, counts, offsets, row_of, rows, y):
    """All kernels in order; given."""
    num_tokens, num_experts = scores.shape
    if num_tokens == 0:
        return
    blocks = -(-num_tokens // THREADS)
    elements = (-(-x.shape[1] // 8), -(-num_tokens // 4))
    launch(choose_kernel, blocks, THREADS, scores, bias, experts, weights)
    launch(count_kernel, 2 * blocks, THREADS, experts, counts)
    launch(scan_kernel, 1, num_experts, counts, capacity, offsets)
    launch(place_kernel, 1, num_experts, experts, offsets, row_of)
    launch(gather_kernel, elements, (8, 4), x, row_of, rows)
    launch(expert_kernel, (elements[0], 2 * elements[1]), (8, 4), offsets, rows)
    launch(scatter_kernel, elements, (8, 4), rows, row_of, weights, x, y)
