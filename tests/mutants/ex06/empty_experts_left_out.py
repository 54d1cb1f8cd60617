"""Experts without tokens get no tiles."""

import numpy as np

MISCONCEPTION = "tile-lost"
CAUGHT_BY = "test_costs"


def tile_costs(counts, tiles_per_expert):
    return np.repeat(counts[counts > 0].astype(np.int64), tiles_per_expert)
