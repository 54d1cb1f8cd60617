"""The phase flips with every piece."""

from numba import cuda

MISCONCEPTION = "phase-flips-each-piece"
CAUGHT_BY = "test_next"


@cuda.jit(device=True)
def next_place(stage, phase):
    if stage == STAGES - 1:
        return 0, phase ^ 1
    return stage + 1, phase ^ 1
