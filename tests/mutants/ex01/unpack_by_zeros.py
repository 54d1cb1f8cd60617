"""Takes rows of zeros for padding."""

import numpy as np

MISCONCEPTION = "padding-found-by-value"
CAUGHT_BY = "test_unpack"


def unpack(packed, counts, tile):
    offsets = aligned_offsets(counts, tile)
    return packed[np.any(packed != 0, axis=1)]
