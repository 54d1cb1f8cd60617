"""Cuts off the end instead of what lies between experts."""

import numpy as np

MISCONCEPTION = "unpack-first-rows"
CAUGHT_BY = "test_unpack"


def unpack(packed, counts, tile):
    offsets = aligned_offsets(counts, tile)
    return packed[: np.sum(counts)]
