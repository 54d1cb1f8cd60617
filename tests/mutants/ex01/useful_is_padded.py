"""Padding counted as useful work."""

import numpy as np

MISCONCEPTION = "padding-is-useful"
CAUGHT_BY = "test_useful_flops"


def useful_flops(counts, N, K):
    longest = np.max(counts, axis=1)
    return 2 * int(np.sum(longest)) * np.shape(counts)[1] * N * K
