"""One tile more than needed where the count is a multiple of the tile."""

import numpy as np

MISCONCEPTION = "tile-too-many"
CAUGHT_BY = "test_aligned_offsets"


def aligned_offsets(counts, tile):
    rows = (np.asarray(counts, np.int64) // tile + 1) * tile
    return np.concatenate(([0], np.cumsum(rows))).astype(np.int32)
