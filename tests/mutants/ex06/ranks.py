"""The place of each tile in the order, not the order."""

import numpy as np

MISCONCEPTION = "ranks-for-order"
CAUGHT_BY = "test_order"


def longest_first(costs):
    order = np.argsort(-costs, kind="stable")
    return np.argsort(order).astype(np.int32)
