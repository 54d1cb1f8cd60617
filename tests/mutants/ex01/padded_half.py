"""A multiply-add counted as one."""

import numpy as np

MISCONCEPTION = "one-flop-per-term"
CAUGHT_BY = "test_padded_flops"


def padded_flops(counts, N, K):
    longest = np.max(counts, axis=1)
    return int(np.sum(longest)) * np.shape(counts)[1] * N * K
