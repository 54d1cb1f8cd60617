"""Every expert gets the first expert's tokens."""

import numpy as np

MISCONCEPTION = "start-not-advanced"
CAUGHT_BY = "test_pack"


def pack(x, counts, tile):
    offsets = aligned_offsets(counts, tile)
    packed = np.zeros((offsets[-1], x.shape[1]), x.dtype)
    start = 0
    for group, count in enumerate(counts):
        packed[offsets[group] : offsets[group] + count] = x[start : start + count]
    return packed
