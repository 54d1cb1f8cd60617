"""The padding comes back as tokens."""

import numpy as np

MISCONCEPTION = "unpack-keeps-padding"
CAUGHT_BY = "test_unpack"


def unpack(packed, counts, tile):
    offsets = aligned_offsets(counts, tile)
    pieces = [packed[offsets[g] : offsets[g + 1]] for g, count in enumerate(counts)]
    return np.concatenate(pieces)
