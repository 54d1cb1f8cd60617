"""Equal tiles are ordered by their number's last digit."""

import numpy as np

MISCONCEPTION = "unstable-ties"
CAUGHT_BY = "test_order"


def longest_first(costs):
    return np.lexsort((np.arange(len(costs)) % 2 == 0, -costs)).astype(np.int32)
