"""Rounded down: an even routing would drop tokens."""

import numpy as np

MISCONCEPTION = "capacity-rounded-down"
CAUGHT_BY = "test_capacity"


def capacity(counts, factor):
    num_experts = np.shape(counts)[1]
    shares = np.sum(counts, axis=1)
    return np.array([int(factor * int(tokens) / num_experts) for tokens in shares], np.int32)
