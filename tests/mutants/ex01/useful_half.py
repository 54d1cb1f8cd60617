"""A multiply-add counted as one."""

import numpy as np

MISCONCEPTION = "one-flop-per-term"
CAUGHT_BY = "test_useful_flops"


def useful_flops(counts, N, K):
    return int(np.sum(counts)) * N * K
