"""Two slots of an expert add to its counter at the same time."""

from numba import cuda

MISCONCEPTION = "count-not-atomic"
CAUGHT_BY = "test_clean"


@cuda.jit
def count_kernel(experts, counts):
    slot = cuda.grid(1)
    if slot < 2 * experts.shape[0]:
        counts[experts[slot // 2, slot % 2]] += 1
