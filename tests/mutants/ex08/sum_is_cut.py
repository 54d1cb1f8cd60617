"""The capacity cuts the sum, not each count."""

from numba import cuda, int32

MISCONCEPTION = "sum-cut-for-count"
CAUGHT_BY = "test_ragged"


@cuda.jit
def scan_kernel(counts, capacity, offsets):
    expert = cuda.threadIdx.x
    before = int32(0)
    for other in range(expert):
        before += counts[other]
    offsets[expert] = min(before, expert * capacity)
    if expert == counts.shape[0] - 1:
        offsets[expert + 1] = min(before + counts[expert], counts.shape[0] * capacity)
