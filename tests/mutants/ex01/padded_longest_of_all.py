"""One length for all batches."""

import numpy as np

MISCONCEPTION = "longest-of-all-batches"
CAUGHT_BY = "test_padded_flops"


def padded_flops(counts, N, K):
    longest = np.max(counts, axis=1)
    return 2 * int(np.max(longest)) * np.size(counts) * N * K
