"""Room for the longest expert: nothing would ever be dropped."""

import math

import numpy as np

MISCONCEPTION = "capacity-from-longest"
CAUGHT_BY = "test_capacity"


def capacity(counts, factor):
    num_experts = np.shape(counts)[1]
    shares = np.max(counts, axis=1)
    return np.array([math.ceil(factor * int(tokens)) for tokens in shares], np.int32)
