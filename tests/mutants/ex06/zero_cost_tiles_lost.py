"""Tiles of cost 0 are left out of the queue."""

import numpy as np

MISCONCEPTION = "tile-lost"
CAUGHT_BY = "test_order"


def longest_first(costs):
    order = np.argsort(-costs, kind="stable").astype(np.int32)
    return order[costs[order] > 0]
