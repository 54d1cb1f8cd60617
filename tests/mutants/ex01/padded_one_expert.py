"""The longest expert counted once per batch, not once for each expert."""

import numpy as np

MISCONCEPTION = "experts-not-counted"
CAUGHT_BY = "test_padded_flops"


def padded_flops(counts, N, K):
    longest = np.max(counts, axis=1)
    return 2 * int(np.sum(longest)) * N * K
