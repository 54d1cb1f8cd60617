"""Every tile costs as much as the longest expert's."""

import numpy as np

MISCONCEPTION = "depth-ignored"
CAUGHT_BY = "test_costs"


def tile_costs(counts, tiles_per_expert):
    return np.full(len(counts) * tiles_per_expert, counts.max(), np.int64)
