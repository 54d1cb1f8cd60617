"""The lesson's offsets: no rounding to tiles."""

import numpy as np

MISCONCEPTION = "not-aligned"
CAUGHT_BY = "test_aligned_offsets"


def aligned_offsets(counts, tile):
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
