"""A phase of empty waits for all threads of the block."""

from numba import cuda

MISCONCEPTION = "arrivals-too-many"
CAUGHT_BY = "test_around"


@cuda.jit(device=True)
def open_ring(full, empty):
    for stage in range(STAGES):
        mbarrier_init(full + 8 * stage, 1)
        mbarrier_init(empty + 8 * stage, 96)
    fence_mbarrier_init()
