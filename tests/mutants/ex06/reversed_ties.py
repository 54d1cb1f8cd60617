"""Sorted upwards and reversed: equal tiles come in reverse."""

import numpy as np

MISCONCEPTION = "unstable-ties"
CAUGHT_BY = "test_order"


def longest_first(costs):
    return np.argsort(costs, kind="stable")[::-1].astype(np.int32)
