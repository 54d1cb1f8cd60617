"""The ring wraps one stage too late."""

from numba import cuda

MISCONCEPTION = "ring-too-long"
CAUGHT_BY = "test_next"


@cuda.jit(device=True)
def next_place(stage, phase):
    if stage == STAGES:
        return 0, phase ^ 1
    return stage + 1, phase
