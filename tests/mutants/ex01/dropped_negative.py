"""Free room of one expert is set off against the overflow of another."""

import numpy as np

MISCONCEPTION = "dropped-not-clipped"
CAUGHT_BY = "test_dropped"


def dropped(counts, limits):
    beyond = np.asarray(counts) - np.asarray(limits)[:, None]
    return beyond.sum(axis=1).astype(np.int32)
