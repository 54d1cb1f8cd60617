"""The order is the wrong way round."""

import numpy as np

MISCONCEPTION = "shortest-first"
CAUGHT_BY = "test_order"


def longest_first(costs):
    return np.argsort(costs, kind="stable").astype(np.int32)
