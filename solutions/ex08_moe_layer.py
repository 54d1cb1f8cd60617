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
    token = cuda.grid(1)
    if token < scores.shape[0]:
        first, second = int32(-1), int32(-1)
        for expert in range(scores.shape[1]):
            value = scores[token, expert] + bias[expert]
            if first < 0 or value > scores[token, first] + bias[first]:
                first, second = expert, first
            elif second < 0 or value > scores[token, second] + bias[second]:
                second = expert
        experts[token, 0], experts[token, 1] = first, second
        weights[token, 0], weights[token, 1] = scores[token, first], scores[token, second]
    # --- stub
    pass
    # <<< fill


@cuda.jit
def count_kernel(experts, counts):
    """One thread for each slot, and a few too many."""
    # >>> fill (about 4 lines): a histogram
    slot = cuda.grid(1)
    if slot < 2 * experts.shape[0]:
        cuda.atomic.add(counts, experts[slot // 2, slot % 2], 1)
    # --- stub
    pass
    # <<< fill


@cuda.jit
def scan_kernel(counts, capacity, offsets):
    """One block, one thread for each expert."""
    # >>> fill (about 7 lines): an exclusive prefix sum of what each expert takes
    expert = cuda.threadIdx.x
    before = int32(0)
    for other in range(expert):
        before += min(counts[other], capacity)
    offsets[expert] = before
    if expert == counts.shape[0] - 1:
        offsets[expert + 1] = before + min(counts[expert], capacity)
    # --- stub
    pass
    # <<< fill


@cuda.jit
def place_kernel(experts, offsets, row_of):
    """One block, one thread for each expert."""
    # >>> fill (about 9 lines): its slots in their order, as long as it has rows
    expert = cuda.threadIdx.x
    row = offsets[expert]
    for choice in range(2):
        for token in range(experts.shape[0]):
            if experts[token, choice] == expert:
                row_of[token, choice] = -1
                if row < offsets[expert + 1]:
                    row_of[token, choice] = row
                    row += 1
    # --- stub
    pass
    # <<< fill


@cuda.jit
def gather_kernel(x, row_of, rows):
    """One thread for each element of x, along x the column, along y the token; some threads too many."""
    # >>> fill (about 6 lines): to every row that the token has
    col, token = cuda.grid(2)
    if token < x.shape[0] and col < x.shape[1]:
        for choice in range(2):
            row = row_of[token, choice]
            if row >= 0:
                rows[row, col] = x[token, col]
    # --- stub
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
    col, token = cuda.grid(2)
    if token < y.shape[0] and col < y.shape[1]:
        acc, total = float32(0.0), float32(0.0)
        for choice in range(2):
            row = row_of[token, choice]
            if row >= 0:
                acc += weights[token, choice] * rows[row, col]
                total += weights[token, choice]
        if total > float32(0.0):
            y[token, col] = acc / total
        else:
            y[token, col] = x[token, col]
    # --- stub
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
