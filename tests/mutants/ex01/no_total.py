"""The exclusive sum without its last entry."""

import numpy as np

MISCONCEPTION = "no-total"
CAUGHT_BY = "test_aligned_offsets"


def aligned_offsets(counts, tile):
    rows = -(-np.asarray(counts, np.int64) // tile) * tile
    return np.concatenate(([0], np.cumsum(rows)[:-1])).astype(np.int32)
