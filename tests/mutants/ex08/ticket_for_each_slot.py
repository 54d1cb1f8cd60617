"""Whoever comes first gets the next row: an atomic ticket."""

from numba import cuda, int32

MISCONCEPTION = "order-by-arrival"
CAUGHT_BY = "test_same_rows"


@cuda.jit
def place_kernel(experts, offsets, row_of):
    for choice in range(2):
        for token in range(cuda.threadIdx.x, experts.shape[0], cuda.blockDim.x):
            row_of[token, choice] = -1
    cuda.syncthreads()
    s_next = cuda.shared.array(64, int32)
    s_next[cuda.threadIdx.x] = offsets[cuda.threadIdx.x]
    cuda.syncthreads()
    for choice in range(2):
        for token in range(cuda.threadIdx.x, experts.shape[0], cuda.blockDim.x):
            expert = experts[token, choice]
            row = cuda.atomic.add(s_next, expert, 1)
            if row < offsets[expert + 1]:
                row_of[token, choice] = row
        cuda.syncthreads()
