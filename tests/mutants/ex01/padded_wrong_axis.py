"""The longest batch of each expert, not the longest expert of each batch."""

import numpy as np

MISCONCEPTION = "wrong-axis"
CAUGHT_BY = "test_padded_flops"


def padded_flops(counts, N, K):
    longest = np.max(counts, axis=0)
    return 2 * int(np.sum(longest)) * np.shape(counts)[1] * N * K
