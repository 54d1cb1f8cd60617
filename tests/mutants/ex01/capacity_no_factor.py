"""The factor is not used."""

import math

import numpy as np

MISCONCEPTION = "factor-forgotten"
CAUGHT_BY = "test_capacity"


def capacity(counts, factor):
    num_experts = np.shape(counts)[1]
    shares = np.sum(counts, axis=1)
    return np.array([math.ceil(int(tokens) / num_experts) for tokens in shares], np.int32)
