"""An expert's tokens are divided among its tiles."""

import numpy as np

MISCONCEPTION = "tokens-divided"
CAUGHT_BY = "test_costs"


def tile_costs(counts, tiles_per_expert):
    return np.repeat(counts.astype(np.int64) // tiles_per_expert, tiles_per_expert)
