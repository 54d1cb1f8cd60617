"""The queue is not sorted at all."""

import numpy as np

MISCONCEPTION = "depth-ignored"
CAUGHT_BY = "test_order"


def longest_first(costs):
    return np.arange(len(costs), dtype=np.int32)
