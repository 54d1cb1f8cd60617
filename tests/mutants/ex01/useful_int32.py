"""Multiplied in 32 bits: large problems overflow."""

import numpy as np

MISCONCEPTION = "overflow"
CAUGHT_BY = "test_useful_flops"


def useful_flops(counts, N, K):
    return int(2 * np.sum(counts, dtype=np.int32) * np.int32(N) * np.int32(K))
