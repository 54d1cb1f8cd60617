"""Who gets no row keeps what stood in row_of before."""

from numba import cuda

MISCONCEPTION = "dropped-not-marked"
CAUGHT_BY = "test_capacity"


@cuda.jit
def place_kernel(experts, offsets, row_of):
    expert = cuda.threadIdx.x
    row = offsets[expert]
    for choice in range(2):
        for token in range(experts.shape[0]):
            if experts[token, choice] == expert:
                if row < offsets[expert + 1]:
                    row_of[token, choice] = row
                    row += 1
