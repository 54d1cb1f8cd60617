"""Adds up over batches instead of experts."""

import math

import numpy as np

MISCONCEPTION = "wrong-axis"
CAUGHT_BY = "test_capacity"


def capacity(counts, factor):
    num_experts = np.shape(counts)[0]
    shares = np.sum(counts, axis=0)
    return np.array([math.ceil(factor * int(tokens) / num_experts) for tokens in shares], np.int32)
