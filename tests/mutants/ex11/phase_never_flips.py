"""The ring wraps, and the phase stays."""

from numba import cuda

MISCONCEPTION = "phase-never-flips"
CAUGHT_BY = "test_next"


@cuda.jit(device=True)
def next_place(stage, phase):
    if stage == STAGES - 1:
        return 0, phase
    return stage + 1, phase
