"""The sum includes its own expert: the first offset is not 0."""

import numpy as np

MISCONCEPTION = "inclusive-sum"
CAUGHT_BY = "test_aligned_offsets"


def aligned_offsets(counts, tile):
    rows = -(-np.asarray(counts, np.int64) // tile) * tile
    return np.cumsum(rows).astype(np.int32)
