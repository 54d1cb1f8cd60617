"""A phase of full waits for an arrival of each consumer."""

from numba import cuda

MISCONCEPTION = "arrivals-too-many"
CAUGHT_BY = "test_one"


@cuda.jit(device=True)
def open_ring(full, empty):
    for stage in range(STAGES):
        mbarrier_init(full + 8 * stage, CONSUMERS)
        mbarrier_init(empty + 8 * stage, CONSUMERS)
    fence_mbarrier_init()
