"""Only the barriers of stage 0 are started."""

from numba import cuda

MISCONCEPTION = "stage-not-opened"
CAUGHT_BY = "test_once_around"


@cuda.jit(device=True)
def open_ring(full, empty):
    for stage in range(1):
        mbarrier_init(full + 8 * stage, 1)
        mbarrier_init(empty + 8 * stage, CONSUMERS)
    fence_mbarrier_init()
