"""Every expert begins where it should end."""

from numba import cuda, int32

MISCONCEPTION = "inclusive-sum"
CAUGHT_BY = "test_room"


@cuda.jit
def scan_kernel(counts, capacity, offsets):
    expert = cuda.threadIdx.x
    before = int32(0)
    for other in range(expert + 1):
        before += min(counts[other], capacity)
    offsets[expert] = before
    if expert == counts.shape[0] - 1:
        offsets[expert + 1] = before
