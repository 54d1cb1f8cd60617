"""Of equal tiles, only the first is kept."""

import numpy as np

MISCONCEPTION = "tile-lost"
CAUGHT_BY = "test_order"


def longest_first(costs):
    return np.unique(-costs, return_index=True)[1].astype(np.int32)
