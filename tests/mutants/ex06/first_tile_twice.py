"""The costliest tile is handed out twice."""

import numpy as np

MISCONCEPTION = "tile-twice"
CAUGHT_BY = "test_order"


def longest_first(costs):
    order = np.argsort(-costs, kind="stable").astype(np.int32)
    return np.concatenate((order[:1], order))
