"""Rows between experts hold whatever was in memory."""

import numpy as np

MISCONCEPTION = "padding-not-zero"
CAUGHT_BY = "test_pack"


def pack(x, counts, tile):
    offsets = aligned_offsets(counts, tile)
    packed = np.empty((offsets[-1], x.shape[1]), x.dtype)
    start = 0
    for group, count in enumerate(counts):
        packed[offsets[group] : offsets[group] + count] = x[start : start + count]
        start += count
    return packed
