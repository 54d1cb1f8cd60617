"""np.cumsum alone, as for the lesson, and inclusive."""

import numpy as np

MISCONCEPTION = "inclusive-sum"
CAUGHT_BY = "test_aligned_offsets"


def aligned_offsets(counts, tile):
    return np.cumsum(counts).astype(np.int32)
