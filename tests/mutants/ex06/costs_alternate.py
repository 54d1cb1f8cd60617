"""The tiles of the experts alternate."""

import numpy as np

MISCONCEPTION = "tiles-alternate"
CAUGHT_BY = "test_costs"


def tile_costs(counts, tiles_per_expert):
    return np.tile(counts.astype(np.int64), tiles_per_expert)
