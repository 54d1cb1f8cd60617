"""Rounds the sums, not the counts: experts share a tile."""

import numpy as np

MISCONCEPTION = "sum-rounded"
CAUGHT_BY = "test_aligned_offsets"


def aligned_offsets(counts, tile):
    sums = np.concatenate(([0], np.cumsum(counts)))
    return (-(-sums // tile) * tile).astype(np.int32)
