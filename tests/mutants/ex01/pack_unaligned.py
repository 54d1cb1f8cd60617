"""The right size, but tokens stand one after the other."""

import numpy as np

MISCONCEPTION = "packed-without-alignment"
CAUGHT_BY = "test_pack"


def pack(x, counts, tile):
    offsets = aligned_offsets(counts, tile)
    packed = np.zeros((offsets[-1], x.shape[1]), x.dtype)
    start = 0
    packed[: len(x)] = x
    return packed
