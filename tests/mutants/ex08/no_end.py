"""The end of the last expert is not written."""

from numba import cuda, int32

MISCONCEPTION = "no-total"
CAUGHT_BY = "test_room"


@cuda.jit
def scan_kernel(counts, capacity, offsets):
    expert = cuda.threadIdx.x
    before = int32(0)
    for other in range(expert):
        before += min(counts[other], capacity)
    offsets[expert] = before
