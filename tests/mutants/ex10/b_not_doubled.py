"""Neighbouring lanes of B are one k apart, not two."""

from numba import cuda

MISCONCEPTION = "pairs-not-doubled"
CAUGHT_BY = "test_b"


@cuda.jit(device=True)
def b_place(lane, word):
    return lane // 4, lane % 4 + word * 8
