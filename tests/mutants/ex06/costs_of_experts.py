"""One cost for each expert, not for each tile."""

import numpy as np

MISCONCEPTION = "experts-for-tiles"
CAUGHT_BY = "test_costs"


def tile_costs(counts, tiles_per_expert):
    return counts.astype(np.int64)
