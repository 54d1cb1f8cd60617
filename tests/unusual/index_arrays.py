"""One index array for both ways, made with repeat."""

import numpy as np

EXERCISE = "ex01_padding"


def rows_of(counts, tile):
    counts = np.asarray(counts)
    shift = aligned_offsets(counts, tile)[:-1] - (np.cumsum(counts) - counts)
    return np.arange(counts.sum()) + np.repeat(shift, counts)


def pack(x, counts, tile):
    out = np.zeros((int(aligned_offsets(counts, tile)[-1]),) + x.shape[1:], dtype=x.dtype)
    out[rows_of(counts, tile)] = x
    return out


def unpack(packed, counts, tile):
    return np.take(packed, rows_of(counts, tile), axis=0)
