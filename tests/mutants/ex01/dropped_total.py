"""Compares the batch with the room of all experts together."""

import numpy as np

MISCONCEPTION = "room-shared"
CAUGHT_BY = "test_dropped"


def dropped(counts, limits):
    room = np.asarray(limits) * np.shape(counts)[1]
    return np.maximum(np.sum(counts, axis=1) - room, 0).astype(np.int32)
