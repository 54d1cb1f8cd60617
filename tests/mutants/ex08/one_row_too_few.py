"""The last row of every expert stays empty."""

from numba import cuda

MISCONCEPTION = "one-row-too-few"
CAUGHT_BY = "test_room"


@cuda.jit
def place_kernel(experts, offsets, row_of):
    expert = cuda.threadIdx.x
    row = offsets[expert]
    for choice in range(2):
        for token in range(experts.shape[0]):
            if experts[token, choice] == expert:
                row_of[token, choice] = -1
                if row < offsets[expert + 1] - 1:
                    row_of[token, choice] = row
                    row += 1
