"""The offsets are those of all slots, room or not."""

from numba import cuda, int32

MISCONCEPTION = "capacity-ignored"
CAUGHT_BY = "test_capacity"


@cuda.jit
def scan_kernel(counts, capacity, offsets):
    expert = cuda.threadIdx.x
    before = int32(0)
    for other in range(expert):
        before += counts[other]
    offsets[expert] = before
    if expert == counts.shape[0] - 1:
        offsets[expert + 1] = before + counts[expert]
