"""All tiles cost the same, as in the forward pass."""

import numpy as np

MISCONCEPTION = "depth-ignored"
CAUGHT_BY = "test_costs"


def tile_costs(counts, tiles_per_expert):
    return np.ones(len(counts) * tiles_per_expert, np.int64)
