"""A phase of empty ends with the first consumer."""

from numba import cuda

MISCONCEPTION = "arrivals-too-few"
CAUGHT_BY = "test_clean"


@cuda.jit(device=True)
def open_ring(full, empty):
    for stage in range(STAGES):
        mbarrier_init(full + 8 * stage, 1)
        mbarrier_init(empty + 8 * stage, 1)
    fence_mbarrier_init()
