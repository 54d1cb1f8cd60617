"""The lesson's padding: every expert as long as the longest."""

import numpy as np

MISCONCEPTION = "padded-to-longest"
CAUGHT_BY = "test_aligned_offsets"


def aligned_offsets(counts, tile):
    return (np.arange(len(counts) + 1) * np.max(counts)).astype(np.int32)
