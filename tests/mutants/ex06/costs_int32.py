"""The costs stay int32."""

import numpy as np

MISCONCEPTION = "cost-type"
CAUGHT_BY = "test_costs"


def tile_costs(counts, tiles_per_expert):
    return np.repeat(counts, tiles_per_expert)
