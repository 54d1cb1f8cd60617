"""Copies as many rows as the slot has, not as the expert has tokens."""

import numpy as np

MISCONCEPTION = "slot-taken-for-tokens"
CAUGHT_BY = "test_pack"


def pack(x, counts, tile):
    offsets = aligned_offsets(counts, tile)
    packed = np.zeros((offsets[-1], x.shape[1]), x.dtype)
    start = 0
    for group, count in enumerate(counts):
        packed[offsets[group] : offsets[group + 1]] = x[start : start + offsets[group + 1] - offsets[group]]
        start += count
    return packed
