"""The lesson's order: a token's second choice before the next token's first."""

from numba import cuda

MISCONCEPTION = "second-choices-too-early"
CAUGHT_BY = "test_capacity"


@cuda.jit
def place_kernel(experts, offsets, row_of):
    expert = cuda.threadIdx.x
    row = offsets[expert]
    for token in range(experts.shape[0]):
        for choice in range(2):
            if experts[token, choice] == expert:
                row_of[token, choice] = -1
                if row < offsets[expert + 1]:
                    row_of[token, choice] = row
                    row += 1
