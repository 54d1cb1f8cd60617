"""As many slots are counted as there are tokens."""

from numba import cuda

MISCONCEPTION = "half-of-the-slots"
CAUGHT_BY = "test_room"


@cuda.jit
def count_kernel(experts, counts):
    slot = cuda.grid(1)
    if slot < experts.shape[0]:
        cuda.atomic.add(counts, experts[slot // 2, slot % 2], 1)
