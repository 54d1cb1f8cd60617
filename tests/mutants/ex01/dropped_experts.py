"""Counts experts that overflow, not tokens."""

import numpy as np

MISCONCEPTION = "experts-for-tokens"
CAUGHT_BY = "test_dropped"


def dropped(counts, limits):
    beyond = np.asarray(counts) > np.asarray(limits)[:, None]
    return beyond.sum(axis=1).astype(np.int32)
