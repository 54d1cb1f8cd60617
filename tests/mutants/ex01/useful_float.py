"""A float, which is exact only up to 2 ** 53."""

import numpy as np

MISCONCEPTION = "not-an-int"
CAUGHT_BY = "test_useful_flops"


def useful_flops(counts, N, K):
    return 2.0 * np.sum(counts) * N * K
