"""A mask for unpack, np.ceil for rounding."""

import numpy as np

EXERCISE = "ex01_padding"


def aligned_offsets(counts, tile):
    tiles = np.ceil(np.asarray(counts) / tile).astype(int)
    offsets = np.zeros(len(counts) + 1, int)
    offsets[1:] = np.cumsum(tiles * tile)
    return np.int32(offsets)


def unpack(packed, counts, tile):
    offsets = aligned_offsets(counts, tile)
    keep = np.zeros(len(packed), bool)
    for start, count in zip(offsets, counts):
        keep[start : start + count] = True
    return packed[keep]


def capacity(counts, factor):
    return np.ceil(factor * counts.sum(1) / counts.shape[1]).astype("i4")
