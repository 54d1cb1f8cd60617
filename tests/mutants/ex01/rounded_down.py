"""Whole tiles only: the last partial tile is lost."""

import numpy as np

MISCONCEPTION = "tiles-rounded-down"
CAUGHT_BY = "test_aligned_offsets"


def aligned_offsets(counts, tile):
    rows = np.asarray(counts, np.int64) // tile * tile
    return np.concatenate(([0], np.cumsum(rows))).astype(np.int32)
